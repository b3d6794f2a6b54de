// What torch's C++ code asks of CUDA: which device is current, its stream, and page-locked memory.
// Loaded before torch's first question, which it asks while it is imported.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace {
constexpr c10::DeviceType kType = c10::DeviceType::CUDA;
constexpr c10::DeviceIndex kCount = 2;  // as in machine.py
thread_local c10::DeviceIndex current = 0;
std::atomic<unsigned> locked_on{0};  // devices that were current while pages were locked, as bits

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }
  c10::Device getDevice() const override { return {kType, current}; }
  c10::Device exchangeDevice(c10::Device device) const override {
    c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  void setDevice(c10::Device device) const override { current = device.index(); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current = device.index(); }
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device.has_index() ? device : getDevice());
  }
  c10::Stream getNewStream(c10::Device device, int) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return kCount; }
  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

// Page-locked memory is any memory, by which blocks are told apart.
struct PageLocked final : c10::Allocator {
  mutable std::mutex mutex;
  mutable std::map<const char*, size_t> blocks;

  static PageLocked& get() {
    static auto* made = new PageLocked;  // outlives tensors that are freed at exit
    return *made;
  }
  c10::DataPtr allocate(size_t size) override {
    locked_on |= 1u << current;
    auto* data = static_cast<char*>(std::malloc(size + 64));
    TORCH_CHECK(data != nullptr, "DefaultCPUAllocator: can't allocate memory");
    std::memset(data, 0xFF, size);
    std::lock_guard<std::mutex> lock(mutex);
    blocks[data] = size;
    return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
  }
  static void release(void* data) {
    std::lock_guard<std::mutex> lock(get().mutex);
    get().blocks.erase(static_cast<char*>(data));
    std::free(data);
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t count) const override {
    std::memcpy(to, from, count);
  }
  size_t bytes() const {
    std::lock_guard<std::mutex> lock(mutex);
    size_t sum = 0;
    for (const auto& block : blocks) sum += block.second;
    return sum;
  }
  bool holds(const void* data) const {
    std::lock_guard<std::mutex> lock(mutex);
    auto after = blocks.upper_bound(static_cast<const char*>(data));
    if (after == blocks.begin()) return false;
    auto found = std::prev(after);
    return static_cast<const char*>(data) < found->first + found->second;
  }
};

struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  int getNumGPUs() const override { return kCount; }
  c10::DeviceIndex deviceCount() const override { return kCount; }
  c10::DeviceIndex current_device() const override { return current; }
  c10::DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(c10::DeviceIndex index) const override { current = index; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    c10::DeviceIndex before = current;
    current = index;
    return before;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override {
    return index < 0 ? current : exchangeDevice(index);
  }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &PageLocked::get(); }
  bool isPinnedPtr(const void* data) const override { return PageLocked::get().holds(data); }
};
}  // namespace

namespace at {
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, Hooks)
}  // namespace at

extern "C" int emulated_current() { return current; }
extern "C" unsigned emulated_locked_on() { return locked_on; }
extern "C" size_t emulated_page_locked_bytes() { return PageLocked::get().bytes(); }
extern "C" void emulated_set(int index) { current = static_cast<c10::DeviceIndex>(index); }
