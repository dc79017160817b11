//! GPUs through NVIDIA's driver, which is found at run time.
//!
//! Nothing here is called before `gpus` or `Cuda::open` has found the driver's library: the bindings panic
//! without it.

#![allow(unsafe_code, reason = "the driver's interface is C")]

mod cache;
mod modules;
mod probe;
mod staging;

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::time::Duration;

use cudarc::driver::sys;
use nemo_ir::types::Dtype;

use self::probe::done;
use self::staging::Staging;
use super::gpu::driver::{
    ALIGN, Address, Driver, DriverError, Facts, GraphId, Image, KernelId, KernelUse, Launch, Loaded, Matrix,
    Memory, ModuleId, TensorMapBytes,
};

pub(crate) use probe::gpus;

/// Opens the GPU of a number, for whoever launches kernels without a model.
///
/// # Errors
/// What the driver says, or that there is none.
pub fn open(number: u32) -> Result<Box<dyn Driver>, DriverError> {
    Cuda::open(number).map(|cuda| Box::new(cuda) as Box<dyn Driver>)
}

/// Bytes that a copy moves when bandwidth is measured: much more than any cache holds.
const COPY_BYTES: u64 = 512 << 20;

/// Copies that are timed together.
const COPIES: u32 = 8;

/// One GPU, its primary context, and everything taken from it.
#[derive(Debug)]
pub(crate) struct Cuda {
    facts: Facts,
    /// What the driver calls its version; compiled kernels are kept under it.
    version: i32,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    staging: Option<Staging>,
    /// Bytes by address.
    taken: BTreeMap<u64, u64>,
    /// The same in the pieces that were asked for.
    pieces: BTreeMap<u64, u64>,
    modules: Vec<sys::CUmodule>,
    kernels: Vec<sys::CUfunction>,
    graphs: Vec<sys::CUgraphExec>,
    /// For timing launches, as many as were needed so far.
    events: Vec<sys::CUevent>,
}

// SAFETY: the driver's handles may be used from any thread; each call first makes the context current on its own.
unsafe impl Send for Cuda {}

impl Cuda {
    /// Opens the GPU of a number.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn open(number: u32) -> Result<Self, DriverError> {
        let version = probe::start().map_err(|error| DriverError(error.to_string()))?;
        let device = probe::device(number)?;
        let facts = probe::facts(device, version)?;
        let mut context = null_mut();
        // SAFETY: the driver was started, and the device is one of its.
        done(unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, device) }, "cuDevicePrimaryCtxRetain")?;
        let mut cuda = Self {
            facts,
            version,
            device,
            context,
            stream: null_mut(),
            staging: None,
            taken: BTreeMap::new(),
            pieces: BTreeMap::new(),
            modules: Vec::new(),
            kernels: Vec::new(),
            graphs: Vec::new(),
            events: Vec::new(),
        };
        cuda.enter()?;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is current; the stream is destroyed when `cuda` is dropped.
        done(unsafe { sys::cuStreamCreate(&mut cuda.stream, flags) }, "cuStreamCreate")?;
        Ok(cuda)
    }

    /// Makes the context current on this thread.
    fn enter(&self) -> Result<(), DriverError> {
        // SAFETY: the context is retained until `self` is dropped.
        done(unsafe { sys::cuCtxSetCurrent(self.context) }, "cuCtxSetCurrent")
    }

    /// That a range lies in one piece of memory that was taken: the address space is that of the machine as well.
    fn check(&self, Address(at): Address, bytes: u64) -> Result<(), DriverError> {
        let inside = self
            .pieces
            .range(..=at)
            .next_back()
            .is_some_and(|(start, size)| at.checked_add(bytes).is_some_and(|end| end - start <= *size));
        if inside {
            return Ok(());
        }
        Err(DriverError(format!("{bytes} bytes at {at:#x} are no memory of this model")))
    }

    fn launch(&self, launch: &Launch) -> Result<(), DriverError> {
        if launch.is_empty() {
            return Ok(());
        }
        let function = self.function(launch.kernel)?;
        let [x, y, z] = launch.grid;
        let mut size = launch.parameters.len();
        let mut extra: [*mut c_void; 5] = [
            sys::CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT as usize as *mut c_void,
            launch.parameters.as_ptr().cast_mut().cast(),
            sys::CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT as usize as *mut c_void,
            (&raw mut size).cast(),
            sys::CU_LAUNCH_PARAM_END_AS_INT as usize as *mut c_void,
        ];
        // SAFETY: the function and the stream live as long as `self`; the driver copies the parameters before it
        // returns and reads `size` bytes of them. What the kernel does with the addresses in them is what the plan says,
        // for steps that were checked.
        let result = unsafe {
            sys::cuLaunchKernel(
                function,
                x,
                y,
                z,
                launch.threads,
                1,
                1,
                launch.shared,
                self.stream,
                null_mut(),
                extra.as_mut_ptr(),
            )
        };
        done(result, "cuLaunchKernel")
    }

    fn function(&self, KernelId(kernel): KernelId) -> Result<sys::CUfunction, DriverError> {
        let unknown = || DriverError(format!("there is no kernel {kernel}"));
        self.kernels.get(kernel as usize).copied().ok_or_else(unknown)
    }

    fn keep(&mut self, module: sys::CUmodule) -> ModuleId {
        self.modules.push(module);
        ModuleId(self.modules.len() as u32 - 1)
    }

    /// At least so many events.
    fn make_events(&mut self, count: usize) -> Result<(), DriverError> {
        while self.events.len() < count {
            self.events.push(staging::event(sys::CUevent_flags::CU_EVENT_DEFAULT)?);
        }
        Ok(())
    }

    fn record_event(&self, event: usize) -> Result<(), DriverError> {
        // SAFETY: the event and the stream live as long as `self`.
        done(unsafe { sys::cuEventRecord(self.events[event], self.stream) }, "cuEventRecord")
    }

    /// Time from one event to another, both of which have happened.
    fn between(&self, first: usize, second: usize) -> Result<Duration, DriverError> {
        let (first, second) = (self.events[first], self.events[second]);
        // SAFETY: both events live as long as `self` and were recorded.
        let elapsed = unsafe { cudarc::driver::result::event::elapsed(first, second) };
        let millis = elapsed.map_err(|error| probe::said(error.0, "cuEventElapsedTime"))?;
        Ok(Duration::from_secs_f64(f64::from(millis.max(0.0)) / 1e3))
    }

    /// Bytes a second of copies from one piece of memory to another.
    fn copy_bandwidth(&mut self) -> Result<f64, DriverError> {
        // What others need of the memory in the meantime is left to them.
        let bytes = (self.memory()?.free / 4).min(COPY_BYTES);
        let from = self.alloc(bytes)?;
        let copied = self.alloc(bytes).and_then(|to| {
            let copied = self.time_copies(to, from, bytes);
            self.free(to)?;
            copied
        });
        self.free(from)?;
        Ok((2 * bytes * u64::from(COPIES)) as f64 / copied?.as_secs_f64().max(1e-9))
    }

    fn time_copies(&mut self, to: Address, from: Address, bytes: u64) -> Result<Duration, DriverError> {
        self.make_events(2)?;
        let copy = || {
            // SAFETY: both ranges were just taken and are as long.
            let result = unsafe { sys::cuMemcpyDtoDAsync_v2(to.0, from.0, bytes as usize, self.stream) };
            done(result, "cuMemcpyDtoDAsync")
        };
        // The first one is not timed: it finds the clocks low.
        copy()?;
        self.record_event(0)?;
        for _ in 0..COPIES {
            copy()?;
        }
        self.record_event(1)?;
        self.wait()?;
        self.between(0, 1)
    }

    fn wait(&self) -> Result<(), DriverError> {
        // SAFETY: the stream lives as long as `self`.
        done(unsafe { sys::cuStreamSynchronize(self.stream) }, "cuStreamSynchronize")
    }
}

impl Driver for Cuda {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn memory(&mut self) -> Result<Memory, DriverError> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both places can be written.
        done(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) }, "cuMemGetInfo")?;
        Ok(Memory { free: free as u64, total: total as u64 })
    }

    fn load(&mut self, image: Image<'_>) -> Result<Loaded, DriverError> {
        self.enter()?;
        match image {
            Image::Cubin(cubin) => {
                let module = self.keep(modules::load_cubin(cubin)?);
                Ok(Loaded { module, compiled: None })
            }
            Image::Ptx(ptx) => {
                let cached = cache::file(ptx, self.version, self.facts.capability);
                let (module, compiled) = modules::load_ptx(ptx, cached.as_deref())?;
                Ok(Loaded { module: self.keep(module), compiled })
            }
        }
    }

    fn kernel(&mut self, module: ModuleId, kernel: KernelUse<'_>) -> Result<KernelId, DriverError> {
        self.enter()?;
        let KernelUse { symbol, threads, shared } = kernel;
        let about = |what: &str| DriverError(format!("kernel `{symbol}`: {what}"));
        let module = self.modules.get(module.0 as usize).copied().ok_or_else(|| about("it has no module"))?;
        let name = CString::new(symbol).map_err(|error| about(&error.to_string()))?;
        let mut function = null_mut();
        // SAFETY: the module lives as long as `self`, and the name ends with a zero.
        let found = unsafe { sys::cuModuleGetFunction(&mut function, module, name.as_ptr()) };
        done(found, "cuModuleGetFunction").map_err(|error| about(&error.0))?;
        // Above 48 KiB, together with what is declared in the code, it has to be asked for.
        if shared > 0 {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is of a module that lives as long as `self`.
            let set = unsafe { sys::cuFuncSetAttribute(function, attribute, shared as i32) };
            done(set, "cuFuncSetAttribute")
                .map_err(|error| about(&format!("{shared} bytes of shared memory: {}", error.0)))?;
        }
        let mut most = 0;
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
        // Asking also loads a kernel that the driver would otherwise load at its first launch, which may be one that
        // is being recorded.
        // SAFETY: as above, and the place can be written.
        let get = unsafe { sys::cuFuncGetAttribute(&mut most, attribute, function) };
        done(get, "cuFuncGetAttribute").map_err(|error| about(&error.0))?;
        if i64::from(threads) > i64::from(most) {
            return Err(about(&format!("its CTAs have {threads} threads, and its registers allow {most}")));
        }
        self.kernels.push(function);
        Ok(KernelId(self.kernels.len() as u32 - 1))
    }

    fn alloc(&mut self, bytes: u64) -> Result<Address, DriverError> {
        self.enter()?;
        let mut address = 0;
        // SAFETY: the place can be written; the memory is given back by `free`, or when `self` is dropped.
        done(unsafe { sys::cuMemAlloc_v2(&mut address, bytes.max(1) as usize) }, "cuMemAlloc")?;
        self.taken.insert(address, bytes.max(1));
        self.pieces.insert(address, bytes.max(1));
        Ok(Address(address))
    }

    /// The driver takes memory by 2 MiB.
    fn alloc_all(&mut self, sizes: &[u64]) -> Result<Vec<Address>, DriverError> {
        let mut end = 0_u64;
        let mut offsets = Vec::with_capacity(sizes.len());
        for bytes in sizes {
            offsets.push(end);
            let next = end.checked_add(*bytes).and_then(|end| end.checked_next_multiple_of(ALIGN));
            end =
                next.ok_or_else(|| DriverError("more memory is wanted than there are addresses".to_owned()))?;
        }
        let first = self.alloc(end)?;
        let places: Vec<_> = offsets.into_iter().map(|offset| first.offset(offset)).collect();
        self.pieces.remove(&first.0);
        self.pieces.extend(places.iter().map(|place| place.0).zip(sizes.iter().copied()));
        Ok(places)
    }

    fn free(&mut self, Address(address): Address) -> Result<(), DriverError> {
        self.enter()?;
        let Some(bytes) = self.taken.remove(&address) else {
            return Err(DriverError(format!("no memory was taken at {address:#x}")));
        };
        self.pieces.retain(|at, _| !(address..address + bytes).contains(at));
        // SAFETY: it was taken, and is not known any more.
        done(unsafe { sys::cuMemFree_v2(address) }, "cuMemFree")
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), DriverError> {
        self.enter()?;
        self.check(to, bytes.len() as u64)?;
        let staging = match &mut self.staging {
            Some(staging) => staging,
            none => none.insert(Staging::new()?),
        };
        // The range was checked, and the stream is of the current context.
        staging.upload(to, bytes, self.stream)
    }

    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), DriverError> {
        self.enter()?;
        self.check(from, bytes.len() as u64)?;
        // SAFETY: the range was checked, and `bytes` lives until the copy is over, which is waited for.
        let copied =
            unsafe { sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), from.0, bytes.len(), self.stream) };
        // Waited for in any case: a copy that has begun must not outlive the borrow.
        let waited = self.wait();
        done(copied, "cuMemcpyDtoHAsync")?;
        waited
    }

    fn zero(&mut self, at: Address, bytes: u64) -> Result<(), DriverError> {
        self.enter()?;
        self.check(at, bytes)?;
        // SAFETY: the range was checked.
        done(unsafe { sys::cuMemsetD8Async(at.0, 0, bytes as usize, self.stream) }, "cuMemsetD8Async")
    }

    fn tensor_map(&mut self, matrix: &Matrix) -> Result<TensorMapBytes, DriverError> {
        self.enter()?;
        let about = |what: &str| {
            let Matrix { rows, columns, row_bytes, box_rows, box_columns, swizzle, .. } = matrix;
            DriverError(format!(
                "a tensor map of {rows} x {columns} elements, {row_bytes} bytes a row, in boxes of {box_rows} x \
                 {box_columns} with swizzle {swizzle}: {what}"
            ))
        };
        let dtype = match matrix.dtype {
            Dtype::F32 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
            Dtype::Bf16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            Dtype::F16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            Dtype::I32 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_INT32,
            Dtype::U8 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        };
        let swizzle = match matrix.swizzle {
            0 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
            32 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B,
            64 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
            128 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            _ => return Err(about("there is no such swizzle")),
        };
        // The fastest dimension first, as the driver has it.
        let dims = [matrix.columns, matrix.rows];
        let strides = [matrix.row_bytes];
        let boxes = [matrix.box_columns, matrix.box_rows];
        let steps = [1_u32; 2];
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: all arrays have as many elements as the rank, strides one less; the driver only notes the address.
        let result = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                dtype,
                2,
                matrix.address.0 as *mut c_void,
                dims.as_ptr(),
                strides.as_ptr(),
                boxes.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzle,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        done(result, "cuTensorMapEncodeTiled").map_err(|error| about(&error.0))?;
        Ok(bytemuck::cast(map.opaque))
    }

    fn run(&mut self, launches: &[Launch]) -> Result<(), DriverError> {
        self.enter()?;
        launches.iter().try_for_each(|launch| self.launch(launch))
    }

    fn record(&mut self, launches: &[Launch]) -> Result<GraphId, DriverError> {
        self.enter()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream lives as long as `self` and is not being recorded: a recording ends before this returns.
        done(unsafe { sys::cuStreamBeginCapture_v2(self.stream, mode) }, "cuStreamBeginCapture")?;
        let launched = launches.iter().try_for_each(|launch| self.launch(launch));
        let mut graph = null_mut();
        // SAFETY: the recording of this stream began above.
        let ended = done(unsafe { sys::cuStreamEndCapture(self.stream, &mut graph) }, "cuStreamEndCapture");
        if let Err(error) = launched.and(ended) {
            if !graph.is_null() {
                // SAFETY: it is what the recording left, and nobody else knows of it.
                let _ = unsafe { sys::cuGraphDestroy(graph) };
            }
            return Err(error);
        }
        let mut executable = null_mut();
        // SAFETY: the graph is the one that was recorded; what is made of it does not refer to it.
        let made = unsafe {
            let made = sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0);
            sys::cuGraphDestroy(graph);
            made
        };
        done(made, "cuGraphInstantiate")?;
        self.graphs.push(executable);
        Ok(GraphId(self.graphs.len() as u32 - 1))
    }

    fn replay(&mut self, GraphId(graph): GraphId) -> Result<(), DriverError> {
        self.enter()?;
        let unknown = || DriverError(format!("there is no recording {graph}"));
        let graph = self.graphs.get(graph as usize).copied().ok_or_else(unknown)?;
        // SAFETY: graph and stream live as long as `self`.
        done(unsafe { sys::cuGraphLaunch(graph, self.stream) }, "cuGraphLaunch")
    }

    fn time(&mut self, launches: &[Launch]) -> Result<Vec<Duration>, DriverError> {
        self.enter()?;
        self.make_events(launches.len() + 1)?;
        self.record_event(0)?;
        for (n, launch) in launches.iter().enumerate() {
            self.launch(launch)?;
            self.record_event(n + 1)?;
        }
        self.wait()?;
        (0..launches.len()).map(|n| self.between(n, n + 1)).collect()
    }

    fn synchronize(&mut self) -> Result<(), DriverError> {
        self.enter()?;
        self.wait()
    }

    fn measure_bandwidth(&mut self) -> Option<f64> {
        self.copy_bandwidth().ok()
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // What the driver says to any of this helps nobody any more.
        let _ = self.enter();
        let _ = self.wait();
        self.staging = None;
        // SAFETY: every handle was made by this value and is used by nobody else; the work on them is over.
        unsafe {
            for graph in self.graphs.drain(..) {
                let _ = sys::cuGraphExecDestroy(graph);
            }
            for event in self.events.drain(..) {
                let _ = sys::cuEventDestroy_v2(event);
            }
            for address in std::mem::take(&mut self.taken).into_keys() {
                let _ = sys::cuMemFree_v2(address);
            }
            for module in self.modules.drain(..) {
                let _ = sys::cuModuleUnload(module);
            }
            if !self.stream.is_null() {
                let _ = sys::cuStreamDestroy_v2(self.stream);
            }
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}
