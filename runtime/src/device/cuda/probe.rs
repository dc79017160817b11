//! Finding the driver and what it sees.

#![allow(unsafe_code, reason = "the driver's interface is C")]

use std::ffi::{CStr, c_char};
use std::ptr::null;

use cudarc::driver::sys;

use crate::device::choice::NoGpus;
use crate::device::gpu::driver::{DriverError, Facts};

/// The oldest version whose functions are all there that nemort calls.
const OLDEST: i32 = 12_000;

/// Branches by the version of CUDA that they came with, the first of each.
const BRANCHES: [(i32, u32); 21] = [
    (10_010, 418),
    (10_020, 440),
    (11_000, 450),
    (11_010, 455),
    (11_020, 460),
    (11_030, 465),
    (11_040, 470),
    (11_050, 495),
    (11_060, 510),
    (11_070, 515),
    (11_080, 520),
    (12_000, 525),
    (12_010, 530),
    (12_020, 535),
    (12_030, 545),
    (12_040, 550),
    (12_050, 555),
    (12_060, 560),
    (12_080, 570),
    (12_090, 575),
    (13_000, 580),
];

/// The branch of a driver, by the version of CUDA that it names; of one that is not listed, the one before it.
fn branch(version: i32) -> u32 {
    let known = BRANCHES.iter().rev().find(|(first, _)| *first <= version);
    known.map_or(0, |(_, branch)| *branch)
}

/// A result as an error says it.
pub(super) fn said(result: sys::CUresult, call: &str) -> DriverError {
    let text = |get: unsafe fn(sys::CUresult, *mut *const c_char) -> sys::CUresult| {
        let mut text = null();
        // SAFETY: the place can be written; the driver's texts live as long as the process.
        unsafe {
            let found = get(result, &mut text) == sys::CUresult::CUDA_SUCCESS && !text.is_null();
            found.then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    };
    let name = text(sys::cuGetErrorName).unwrap_or_else(|| format!("error {}", result as u32));
    match text(sys::cuGetErrorString) {
        Some(what) => DriverError(format!("{call}: {what} ({name})")),
        None => DriverError(format!("{call}: {name}")),
    }
}

/// That a call succeeded.
pub(super) fn done(result: sys::CUresult, call: &str) -> Result<(), DriverError> {
    if result == sys::CUresult::CUDA_SUCCESS { Ok(()) } else { Err(said(result, call)) }
}

/// Finds and starts the driver; its version.
pub(super) fn start() -> Result<i32, NoGpus> {
    // SAFETY: loading the driver's library runs its initialisers, which is what it is for.
    if !unsafe { sys::is_culib_present() } {
        return Err(NoGpus::NoLibrary);
    }
    let failed = |error: DriverError| NoGpus::Failed(error.0);
    let mut version = 0;
    // SAFETY: the library is there, every version has this function, and the place can be written.
    let found = unsafe { sys::cuDriverGetVersion(&mut version) };
    done(found, "cuDriverGetVersion").map_err(failed)?;
    if version < OLDEST {
        return Err(NoGpus::TooOld { has: branch(version), needs: branch(OLDEST) });
    }
    // SAFETY: the library is there.
    match unsafe { sys::cuInit(0) } {
        // It works, and has nothing to work with.
        sys::CUresult::CUDA_ERROR_NO_DEVICE => Ok(version),
        result => done(result, "cuInit").map_err(failed).map(|()| version),
    }
}

/// The GPUs that the driver sees, by number.
///
/// # Errors
/// [`NoGpus`] where there is no driver, or none that works.
pub(crate) fn gpus() -> Result<Vec<Facts>, NoGpus> {
    let version = start()?;
    let mut count = 0;
    // SAFETY: the driver was started, and the place can be written.
    let counted = match unsafe { sys::cuDeviceGetCount(&mut count) } {
        // What it says when it found none at its start.
        sys::CUresult::CUDA_ERROR_NOT_INITIALIZED | sys::CUresult::CUDA_ERROR_NO_DEVICE => Ok(()),
        result => done(result, "cuDeviceGetCount"),
    };
    let failed = |error: DriverError| NoGpus::Failed(error.0);
    counted.map_err(failed)?;
    (0..count.max(0) as u32)
        .map(|number| device(number).and_then(|device| facts(device, version)))
        .collect::<Result<_, _>>()
        .map_err(failed)
}

/// The device of a number.
pub(super) fn device(number: u32) -> Result<sys::CUdevice, DriverError> {
    let mut device = 0;
    // SAFETY: the driver was started, and the place can be written.
    done(unsafe { sys::cuDeviceGet(&mut device, number as i32) }, "cuDeviceGet")?;
    Ok(device)
}

/// What the driver says of a device.
pub(super) fn facts(device: sys::CUdevice, version: i32) -> Result<Facts, DriverError> {
    let attribute = |attribute| {
        let mut value = 0;
        // SAFETY: the driver was started, and the place can be written.
        done(unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, device) }, "cuDeviceGetAttribute")?;
        Ok(value.max(0) as u32)
    };
    let major = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let mut name = [0_u8; 128];
    // SAFETY: the driver writes at most as many bytes as the length says, with a zero at the end.
    let named =
        unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast::<c_char>(), name.len() as i32, device) };
    done(named, "cuDeviceGetName")?;
    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned();
    Ok(Facts { name, capability: (major, minor), driver: branch(version) })
}

#[cfg(test)]
mod tests {
    use super::branch;

    #[test]
    fn branches_follow_versions() {
        assert_eq!(branch(11_080), 520);
        assert_eq!(branch(12_000), 525);
        assert_eq!(branch(12_020), 535);
        // Between two that are known, and after the last.
        assert_eq!(branch(12_070), 560);
        assert_eq!(branch(99_000), 580);
        assert_eq!(branch(5_000), 0);
    }
}
