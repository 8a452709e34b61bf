//! The device, and a function for each thing that is done with it.
//!
//! All calls of the driver are here. Its first error is kept: from then on every function gives it, since
//! an error may come late, of a call long before, and leaves the device in an unknown state.
#![expect(unsafe_code, reason = "calls the driver with addresses")]

use std::fmt;
use std::sync::{Arc, OnceLock};

use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaSlice, CudaStream, DevicePtr, DeviceRepr,
    DriverError, LaunchConfig, PinnedHostSlice, PushKernelArg, result, sys,
};
use tidelog_warm::WarmError;

use crate::abi::{Address, BLOCK, KERNELS, Plain};
use crate::modules::module_for;
use crate::open::Disabled;

/// The oldest driver whose functions are those of the bindings.
const DRIVER_MIN: i32 = 12020;
/// Blocks of a launch for each multiprocessor: what it can have under way, with 256 threads each.
const BLOCKS_PER_PROCESSOR: u32 = 8;

/// A device whose memory is taken.
pub(crate) struct Device {
    context: Arc<CudaContext>,
    functions: Vec<(&'static str, CudaFunction)>,
    /// Held for its `Drop`.
    _memory: CudaSlice<u8>,
    base: Address,
    bytes: u64,
    name: String,
    processors: u32,
    dead: OnceLock<String>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whether the driver's library can be loaded. Never panics.
pub(crate) fn has_driver() -> bool {
    // SAFETY: loads libraries of the driver's names, and looks for no function.
    unsafe { sys::is_culib_present() }
}

impl Device {
    /// Opens a device, loads the kernels, and takes so many bytes of its memory.
    ///
    /// Panics if the driver lacks a function: the caller catches that.
    pub(crate) fn open(ordinal: usize, bytes: u64) -> Result<Arc<Self>, Disabled> {
        let mut version = 0;
        // SAFETY: the address is that of a variable.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(Disabled::driver)?;
        if version < DRIVER_MIN {
            return Err(Disabled::OldDriver { found: version, needed: DRIVER_MIN });
        }
        let context = CudaContext::new(ordinal).map_err(Disabled::driver)?;
        // SAFETY: no allocation has been made; streams are ordered by events of this crate.
        unsafe { context.disable_event_tracking() };
        context.set_blocking_synchronize().map_err(Disabled::driver)?;
        let (major, minor) = context.compute_capability().map_err(Disabled::driver)?;
        let capability = (major.unsigned_abs(), minor.unsigned_abs());
        let image = module_for(capability).map_err(|reason| Disabled::Kernels { reason })?;
        let module = context.load_module(image).map_err(Disabled::driver)?;
        let mut functions = Vec::with_capacity(KERNELS.len());
        for (name, _) in KERNELS {
            functions.push((name, module.load_function(name).map_err(Disabled::driver)?));
        }
        let processors = context
            .attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
            .map_err(Disabled::driver)?;
        let name = context.name().map_err(Disabled::driver)?;
        let memory = Self::take_memory(&context, bytes)?;
        let stream = context.new_stream().map_err(Disabled::driver)?;
        let base = memory.device_ptr(&stream).0;
        Ok(Arc::new(Self {
            context,
            functions,
            _memory: memory,
            base,
            bytes,
            name,
            processors: processors.unsigned_abs(),
            dead: OnceLock::new(),
        }))
    }

    fn take_memory(context: &Arc<CudaContext>, bytes: u64) -> Result<CudaSlice<u8>, Disabled> {
        let (free, _) = context.mem_get_info().map_err(Disabled::driver)?;
        let out_of_memory = Disabled::Memory { wanted: bytes, free: free as u64 };
        let Some(length) = usize::try_from(bytes).ok().filter(|length| *length <= free) else {
            return Err(out_of_memory);
        };
        let stream = context.new_stream().map_err(Disabled::driver)?;
        // SAFETY: kernels write to memory before they read it.
        match unsafe { stream.alloc(length) } {
            Ok(memory) => {
                // Allocations may be ordered by the stream; others must not come before.
                stream.synchronize().map_err(Disabled::driver)?;
                Ok(memory)
            }
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(out_of_memory),
            Err(error) => Err(Disabled::driver(error)),
        }
    }

    /// The address of the first byte of its memory.
    pub(crate) const fn base(&self) -> Address {
        self.base
    }

    /// How many bytes were taken.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The device's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Why the device is out of use, if it is.
    pub(crate) fn dead(&self) -> Option<&str> {
        self.dead.get().map(String::as_str)
    }

    /// Fails if the device is out of use.
    pub(crate) fn check(&self) -> Result<(), WarmError> {
        match self.dead() {
            None => Ok(()),
            Some(reason) => Err(WarmError::Dead { reason: reason.to_owned() }),
        }
    }

    /// Puts the device out of use, unless it is already.
    pub(crate) fn die(&self, reason: String) -> WarmError {
        WarmError::Dead { reason: self.dead.get_or_init(|| reason).clone() }
    }

    /// Keeps the driver's first error. The driver's own text is not asked for: it may be gone.
    fn keep<T>(&self, what: &str, outcome: Result<T, DriverError>) -> Result<T, WarmError> {
        outcome.map_err(|error| self.die(format!("{what}: {:?}", error.0)))
    }

    fn holds(&self, at: Address, bytes: u64) -> bool {
        at >= self.base && bytes <= self.bytes && at - self.base <= self.bytes - bytes
    }
}

/// Something that a stream has done, once the stream is there.
#[derive(Debug)]
pub(crate) struct Event(CudaEvent);

/// A stream of the device, and the host's pinned memory that its copies go through.
pub(crate) struct Stream {
    device: Arc<Device>,
    stream: Arc<CudaStream>,
    up: Pinned,
    /// Bytes of `up` that copies may still read.
    up_used: usize,
    down: Pinned,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("device", &self.device).finish_non_exhaustive()
    }
}

/// Pinned memory of the host. The owner sees to it that copies and accesses take turns.
struct Pinned {
    /// Held for its `Drop`.
    _memory: PinnedHostSlice<u8>,
    start: *mut u8,
    length: usize,
}

// SAFETY: the memory belongs to this value alone, and is not bound to a thread.
unsafe impl Send for Pinned {}
// SAFETY: it is changed through `&mut` only.
unsafe impl Sync for Pinned {}

impl Pinned {
    fn new(device: &Device, length: usize) -> Result<Self, DriverError> {
        // SAFETY: it is written to before it is read. Not write-combined: results are read from it.
        let mut memory = unsafe { device.context.alloc_pinned_with_flags(length, 0) }?;
        let start = memory.as_mut_ptr()?;
        Ok(Self { _memory: memory, start, length })
    }

    /// Part of the memory, which no copy is under way to or from.
    fn part(&mut self, at: usize, length: usize) -> &mut [u8] {
        assert!(at <= self.length && length <= self.length - at, "within pinned memory");
        // SAFETY: within the allocation, which was zeroed or copied to.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), length) }
    }
}

impl Stream {
    /// A new stream, with so many pinned bytes for copies, half of them in each direction.
    pub(crate) fn open(device: &Arc<Device>, staging: usize) -> Result<Self, Disabled> {
        let stream = device.context.new_stream().map_err(Disabled::driver)?;
        let half = (staging / 2).next_multiple_of(64);
        let mut up = Pinned::new(device, half).map_err(Disabled::driver)?;
        let mut down = Pinned::new(device, half).map_err(Disabled::driver)?;
        for pinned in [&mut up, &mut down] {
            // SAFETY: the allocation is that long.
            unsafe { pinned.start.write_bytes(0, pinned.length) };
        }
        Ok(Self { device: Arc::clone(device), stream, up, up_used: 0, down })
    }

    /// The device that it is of.
    pub(crate) const fn device(&self) -> &Arc<Device> {
        &self.device
    }

    fn bind(&self) -> Result<(), WarmError> {
        self.device.check()?;
        self.device.keep("binding the context", self.device.context.bind_to_thread())
    }

    /// Copies to the device. The bytes may be changed at once.
    pub(crate) fn upload<T: Plain>(&mut self, to: Address, values: &[T]) -> Result<(), WarmError> {
        let bytes = T::bytes(values);
        self.bind()?;
        assert!(self.device.holds(to, bytes.len() as u64), "within the device's memory");
        let mut done = 0;
        while done < bytes.len() {
            if self.up_used == self.up.length {
                self.wait()?;
            }
            let length = (bytes.len() - done).min(self.up.length - self.up_used);
            let part = self.up.part(self.up_used, length);
            part.copy_from_slice(&bytes[done..done + length]);
            // SAFETY: both ranges are within their memory, and this part of the pinned one is not written
            // to again before the stream was waited for.
            let copied = unsafe {
                result::memcpy_htod_async(to + done as u64, part, self.stream.cu_stream())
            };
            self.device.keep("copying to the device", copied)?;
            self.up_used += length;
            done += length;
        }
        Ok(())
    }

    /// Copies from the device what the stream has computed, and waits for it.
    pub(crate) fn download<T: Plain + Default>(
        &mut self,
        from: Address,
        count: usize,
    ) -> Result<Vec<T>, WarmError> {
        self.bind()?;
        let mut values = vec![T::default(); count];
        let total = size_of_val(values.as_slice());
        assert!(self.device.holds(from, total as u64), "within the device's memory");
        let mut done = 0;
        while done < total {
            let length = (total - done).min(self.down.length);
            let part = self.down.part(0, length);
            // SAFETY: both ranges are within their memory, and the copy has ended when they are read.
            let copied = unsafe {
                result::memcpy_dtoh_async(part, from + done as u64, self.stream.cu_stream())
            };
            self.device.keep("copying from the device", copied)?;
            self.wait()?;
            let part = self.down.part(0, length);
            // SAFETY: `values` has `total` bytes, and any bytes are a `T`: plain integers.
            unsafe {
                let to = values.as_mut_ptr().cast::<u8>().add(done);
                to.copy_from_nonoverlapping(part.as_ptr(), length);
            }
            done += length;
        }
        Ok(values)
    }

    /// Copies within the device's memory.
    pub(crate) fn copy(&self, from: Address, to: Address, bytes: u64) -> Result<(), WarmError> {
        self.bind()?;
        assert!(self.device.holds(from, bytes), "within the device's memory");
        assert!(self.device.holds(to, bytes), "within the device's memory");
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        // SAFETY: both ranges are within the device's memory.
        let copied =
            unsafe { result::memcpy_dtod_async(to, from, length, self.stream.cu_stream()) };
        self.device.keep("copying on the device", copied)
    }

    /// Copies all pinned memory of one direction to or from the device, so many times, and waits.
    pub(crate) fn copy_pinned(
        &mut self,
        at: Address,
        to_device: bool,
        times: u32,
    ) -> Result<u64, WarmError> {
        self.wait()?;
        let length = self.down.length;
        assert!(self.device.holds(at, length as u64), "within the device's memory");
        let part = if to_device { self.up.part(0, length) } else { self.down.part(0, length) };
        for _ in 0..times {
            // SAFETY: both ranges are within their memory, and nothing else is done with them until the
            // stream has been waited for.
            let copied = unsafe {
                if to_device {
                    result::memcpy_htod_async(at, part, self.stream.cu_stream())
                } else {
                    result::memcpy_dtoh_async(part, at, self.stream.cu_stream())
                }
            };
            self.device.keep("copying pinned memory", copied)?;
        }
        self.wait()?;
        Ok(length as u64 * u64::from(times))
    }

    /// Fills memory with zeros.
    pub(crate) fn clear(&self, at: Address, bytes: u64) -> Result<(), WarmError> {
        if bytes == 0 {
            return Ok(());
        }
        self.bind()?;
        assert!(self.device.holds(at, bytes), "within the device's memory");
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        // SAFETY: the range is within the device's memory.
        let filled = unsafe { result::memset_d8_async(at, 0, length, self.stream.cu_stream()) };
        self.device.keep("filling memory", filled)
    }

    /// Runs a kernel with enough blocks for so many pieces of work, one for each block; with less where
    /// the device would not run them at once.
    pub(crate) fn launch<T: DeviceRepr>(
        &self,
        kernel: &'static str,
        work: u32,
        args: &T,
    ) -> Result<(), WarmError> {
        self.bind()?;
        let Some((_, function)) = self.device.functions.iter().find(|(name, _)| *name == kernel)
        else {
            return Err(self.device.die(format!("there is no kernel {kernel}")));
        };
        let blocks = work.clamp(1, self.device.processors.max(1) * BLOCKS_PER_PROCESSOR);
        let config = LaunchConfig {
            grid_dim: (blocks, 1, 1),
            block_dim: (BLOCK, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: `KERNELS` says which struct the kernel takes, and a test that the sizes agree. Its
        // addresses are of the arena or of scratch, with the lengths that it is given.
        let launched = unsafe { self.stream.launch_builder(function).arg(args).launch(config) };
        self.device.keep("launching a kernel", launched.map(|_| ()))
    }

    /// Waits until all is done that was put on the stream.
    pub(crate) fn wait(&mut self) -> Result<(), WarmError> {
        self.bind()?;
        self.device.keep("waiting for the device", self.stream.synchronize())?;
        self.up_used = 0;
        Ok(())
    }

    /// An event that happens when all is done that was put on the stream until now.
    pub(crate) fn record(&self) -> Result<Event, WarmError> {
        self.bind()?;
        let event = self.stream.record_event(None);
        Ok(Event(self.device.keep("recording an event", event)?))
    }

    /// Lets the stream go on only after the event.
    pub(crate) fn wait_for(&self, event: &Event) -> Result<(), WarmError> {
        self.bind()?;
        self.device.keep("waiting for an event", self.stream.wait(&event.0))
    }
}

impl Drop for Stream {
    /// Copies under way read and write the pinned memory, which is freed next.
    fn drop(&mut self) {
        let _ = self.wait();
    }
}
