// Pages that are opened from the disk may start no workers. The search's one runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.onmessage = null
      this.waiting = []
      this.listener = (event) => {
        if (event.source === this.frame.contentWindow) this.onmessage?.(event)
      }
      addEventListener("message", this.listener)
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      const send = "self.postMessage = (data) => parent.postMessage(data, '*')"
      this.frame.srcdoc = `<script>${send}<\/script><script src="${new URL(url, location.href)}"><\/script>`
      this.frame.onload = () => {
        this.loaded = true
        this.waiting.splice(0).forEach((data) => this.postMessage(data))
      }
      document.documentElement.append(this.frame)
    }
    postMessage(data) {
      // Not by the frame's own postMessage, which is now the worker's.
      if (this.loaded) this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
      else this.waiting.push(data)
    }
    terminate() {
      removeEventListener("message", this.listener)
      this.frame.remove()
    }
  }
}
