// Tells a CPU build of torch that it has one device of another kind, which computes nothing: enough
// for fake tensors, device guards and the autograd engine. Compile with -DSIMULATED_CUDA or
// -DSIMULATED_MPS.
#include <c10/core/impl/DeviceGuardImplInterface.h>

#ifdef SIMULATED_MPS
#include <ATen/detail/MPSHooksInterface.h>
#define DEVICE MPS
#else
#include <ATen/detail/CUDAHooksInterface.h>
#define DEVICE CUDA
#endif

namespace at {

// torch looks the hooks up by the name of this class.
#ifdef SIMULATED_MPS
struct MPSHooks : MPSHooksInterface {
  bool hasMPS() const override { return true; }
  bool isOnMacOSorNewer(unsigned, unsigned) const override { return true; }
#else
struct CUDAHooks : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  bool hasCUDA() const override { return true; }
#endif
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return false; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
};

#ifdef SIMULATED_MPS
REGISTER_MPS_HOOKS(MPSHooks);
#else
REGISTER_CUDA_HOOKS(CUDAHooks);
#endif

} // namespace at

namespace {

const c10::Device kFirst{c10::DeviceType::DEVICE, 0};

// torch's own no-op guard names a device without an index, which equals no tensor's device.
struct OneDeviceGuard : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::DEVICE> {
  c10::Device getDevice() const override { return kFirst; }
  c10::Device exchangeDevice(c10::Device) const override { return kFirst; }
  c10::Stream getStream(c10::Device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, kFirst);
  }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return getStream(kFirst); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};

C10_REGISTER_GUARD_IMPL(DEVICE, OneDeviceGuard);

} // namespace
