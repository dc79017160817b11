//! Loading kernels: machine code as it is, PTX through the driver's compiler, whose work is kept.

#![allow(unsafe_code, reason = "the driver's interface is C")]

use std::ffi::{CStr, CString, c_void};
use std::path::Path;
use std::ptr::null_mut;
use std::time::Instant;

use cudarc::driver::sys;

use super::cache;
use super::probe::done;
use crate::device::gpu::driver::{Compiled, DriverError};

/// Room for what the driver's compiler has to say.
const LOG_BYTES: usize = 8 << 10;

/// Options that make the driver write its errors into a log.
struct Log {
    text: Vec<u8>,
    options: [sys::CUjit_option; 2],
    values: [*mut c_void; 2],
}

impl Log {
    fn new() -> Self {
        let mut text = vec![0; LOG_BYTES];
        let values = [text.as_mut_ptr().cast(), LOG_BYTES as *mut c_void];
        let options = [
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        Self { text, options, values }
    }

    /// An error with what the log says.
    fn with(&self, DriverError(error): DriverError) -> DriverError {
        let said = CStr::from_bytes_until_nul(&self.text).unwrap_or_default().to_string_lossy();
        match said.trim() {
            "" => DriverError(error),
            said => DriverError(format!("{error}: {said}")),
        }
    }
}

/// Loads machine code.
pub(super) fn load_cubin(cubin: &[u8]) -> Result<sys::CUmodule, DriverError> {
    load(cubin)
}

/// Loads PTX: from a file of machine code that was made of it before, or by compiling it.
pub(super) fn load_ptx(
    ptx: &str,
    cached: Option<&Path>,
) -> Result<(sys::CUmodule, Option<Compiled>), DriverError> {
    let kept = cached.and_then(|file| std::fs::read(file).ok());
    // A file that the driver does not take is as good as none.
    if let Some(module) = kept.and_then(|cubin| load(&cubin).ok()) {
        return Ok((module, None));
    }
    let started = Instant::now();
    let text = CString::new(ptx).map_err(|error| DriverError(format!("the PTX has a zero byte: {error}")))?;
    let (module, not_kept) = match compile(&text) {
        Ok(cubin) => {
            let module = load(&cubin)?;
            if let Some(file) = cached {
                cache::keep(file, &cubin);
            }
            (module, None)
        }
        // What the linker cannot give as a file the loader may still take; if not, its error is the better one.
        Err(error) => (load(text.as_bytes_with_nul())?, Some(error.0)),
    };
    Ok((module, Some(Compiled { took: started.elapsed(), not_kept })))
}

/// Loads an image: machine code, or PTX with a zero at the end.
fn load(image: &[u8]) -> Result<sys::CUmodule, DriverError> {
    let mut log = Log::new();
    let mut module = null_mut();
    let count = log.options.len() as u32;
    // SAFETY: a context is current; machine code says its own length and PTX ends with a zero; the log has the size
    // that its option says and outlives the call.
    let loaded = unsafe {
        let (options, values) = (log.options.as_mut_ptr(), log.values.as_mut_ptr());
        sys::cuModuleLoadDataEx(&mut module, image.as_ptr().cast(), count, options, values)
    };
    done(loaded, "cuModuleLoadDataEx").map_err(|error| log.with(error))?;
    Ok(module)
}

/// Compiles PTX to machine code for the GPU of the current context.
fn compile(ptx: &CStr) -> Result<Vec<u8>, DriverError> {
    let mut log = Log::new();
    let mut state = null_mut();
    let count = log.options.len() as u32;
    // SAFETY: a context is current; the log outlives the state, which is destroyed below.
    let created =
        unsafe { sys::cuLinkCreate_v2(count, log.options.as_mut_ptr(), log.values.as_mut_ptr(), &mut state) };
    done(created, "cuLinkCreate")?;
    let linked = link(state, ptx).map_err(|error| log.with(error));
    // SAFETY: the state was created above, and what it made has been copied.
    let _ = unsafe { sys::cuLinkDestroy(state) };
    linked
}

fn link(state: sys::CUlinkState, ptx: &CStr) -> Result<Vec<u8>, DriverError> {
    let bytes = ptx.to_bytes_with_nul();
    let kind = sys::CUjitInputType::CU_JIT_INPUT_PTX;
    let name = c"kernels.ptx";
    let (data, size) = (bytes.as_ptr().cast_mut().cast(), bytes.len());
    // SAFETY: the driver only reads the text, whose length it is given, and the name.
    let added =
        unsafe { sys::cuLinkAddData_v2(state, kind, data, size, name.as_ptr(), 0, null_mut(), null_mut()) };
    done(added, "cuLinkAddData")?;
    let (mut cubin, mut size) = (null_mut(), 0);
    // SAFETY: both places can be written.
    done(unsafe { sys::cuLinkComplete(state, &mut cubin, &mut size) }, "cuLinkComplete")?;
    // SAFETY: the driver gives `size` bytes that live until the state is destroyed, and these are a copy.
    Ok(unsafe { std::slice::from_raw_parts(cubin.cast::<u8>(), size) }.to_vec())
}
