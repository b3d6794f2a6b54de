// Clips as files that the server reads: recorded, or decoded here and written as WAV.

const READ = ["RIFF", "fLaC", "OggS", "ID3"]; // how files begin that the server decodes itself
const MP3 = [0xfb, 0xf3, 0xf2, 0xfa]; // the second byte of one without a tag, whose first is 255

/** Bytes of a 16-bit WAV file of mono samples. */
const bytes = (count) => 44 + 2 * count;

/** A 16-bit WAV file of mono samples in [-1, 1]. */
export function wav(blocks, rate) {
  const count = blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(bytes(count)));
  const letters = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  letters(0, "RIFF");
  view.setUint32(4, 36 + 2 * count, true);
  letters(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes of this part
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true); // bytes a second
  view.setUint16(32, 2, true); // bytes of a frame
  view.setUint16(34, 16, true); // bits of a sample
  letters(36, "data");
  view.setUint32(40, 2 * count, true);
  let at = 44;
  for (const block of blocks)
    for (const sample of block) {
      view.setInt16(at, Math.round(32767 * Math.max(-1, Math.min(1, sample))), true);
      at += 2;
    }
  return new Blob([view], { type: "audio/wav" });
}

/** A file as it is, or decoded by the browser where the server does not read its format. */
export async function readable(file) {
  const begin = new Uint8Array(await file.slice(0, 4).arrayBuffer());
  const word = String.fromCharCode(...begin);
  if (READ.some((each) => word.startsWith(each)) || (begin[0] === 0xff && MP3.includes(begin[1])))
    return file;
  const context = new OfflineAudioContext(1, 1, 16000);
  let buffer;
  try {
    buffer = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(`${file.name}: neither the server nor this browser reads it as audio`);
  }
  const mono = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++)
    buffer.getChannelData(channel).forEach((sample, i) => {
      mono[i] += sample / buffer.numberOfChannels;
    });
  return wav([mono], buffer.sampleRate);
}

/** Records from the microphone; `stop` gives the file. `heard` is told its seconds and bytes so far. */
export async function record(heard) {
  if (!navigator.mediaDevices)
    throw new Error("a browser records on https and on localhost only: choose a file");
  // What makes speech pleasant changes what the model hears.
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  const context = new AudioContext();
  const blocks = [];
  let count = 0;
  let ended = false;
  const end = async () => {
    ended = true;
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
  };
  const stop = async () => {
    await end();
    if (!count) throw new Error("nothing was heard: record for longer");
    return wav(blocks, context.sampleRate);
  };
  try {
    await context.audioWorklet.addModule("recorder.js");
    const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    recorder.port.onmessage = ({ data }) => {
      if (ended) return;
      blocks.push(data);
      count += data.length;
      heard(count / context.sampleRate, bytes(count));
    };
    context.createMediaStreamSource(stream).connect(recorder);
    await context.resume();
  } catch (error) {
    await end();
    throw error;
  }
  return stop;
}
