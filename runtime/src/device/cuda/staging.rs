//! Pinned memory through which bytes go to a GPU: the copy of one piece runs while the next one is filled.

#![allow(unsafe_code, reason = "the driver's interface is C")]

use std::ptr::{NonNull, null_mut};

use cudarc::driver::sys;

use super::probe::done;
use crate::device::gpu::driver::{Address, DriverError};

/// Bytes of one of the two buffers.
const BYTES: usize = 16 << 20;

/// Two pinned buffers.
#[derive(Debug)]
pub(super) struct Staging {
    buffers: [Buffer; 2],
    /// The one to be filled next.
    next: usize,
}

/// A pinned buffer, and the event after which it may be written again.
#[derive(Debug)]
struct Buffer {
    start: NonNull<u8>,
    free: sys::CUevent,
}

/// A new event of the current context.
pub(super) fn event(flags: sys::CUevent_flags) -> Result<sys::CUevent, DriverError> {
    let mut event = null_mut();
    // SAFETY: the place can be written; whoever calls this destroys the event.
    done(unsafe { sys::cuEventCreate(&mut event, flags as u32) }, "cuEventCreate")?;
    Ok(event)
}

impl Buffer {
    fn new() -> Result<Self, DriverError> {
        let free = event(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        let mut start = null_mut();
        // SAFETY: the place can be written; the memory is given back when the buffer is dropped.
        let taken = done(unsafe { sys::cuMemHostAlloc(&mut start, BYTES, 0) }, "cuMemHostAlloc");
        let start =
            NonNull::new(start.cast::<u8>()).ok_or_else(|| DriverError("no pinned memory".to_owned()));
        match (taken, start) {
            (Ok(()), Ok(start)) => Ok(Self { start, free }),
            (Err(error), _) | (_, Err(error)) => {
                // SAFETY: nobody has the event.
                let _ = unsafe { sys::cuEventDestroy_v2(free) };
                Err(error)
            }
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the copies from the buffer are waited for, and nobody else has its handles.
        unsafe {
            let _ = sys::cuEventSynchronize(self.free);
            let _ = sys::cuEventDestroy_v2(self.free);
            let _ = sys::cuMemFreeHost(self.start.as_ptr().cast());
        }
    }
}

impl Staging {
    /// Buffers of the current context.
    pub(super) fn new() -> Result<Self, DriverError> {
        Ok(Self { buffers: [Buffer::new()?, Buffer::new()?], next: 0 })
    }

    /// Copies bytes to a range of the GPU's memory that the caller has checked, in the order of a stream of the
    /// current context.
    pub(super) fn upload(
        &mut self,
        to: Address,
        bytes: &[u8],
        stream: sys::CUstream,
    ) -> Result<(), DriverError> {
        for (n, piece) in bytes.chunks(BYTES).enumerate() {
            let Buffer { start, free } = &self.buffers[self.next];
            let at = to.offset((n * BYTES) as u64).0;
            // SAFETY: the buffer has room for a piece and is not read any more once its event has happened; it lives
            // until its last copy is over.
            unsafe {
                done(sys::cuEventSynchronize(*free), "cuEventSynchronize")?;
                start.as_ptr().copy_from_nonoverlapping(piece.as_ptr(), piece.len());
                let copied = sys::cuMemcpyHtoDAsync_v2(at, start.as_ptr().cast(), piece.len(), stream);
                done(copied, "cuMemcpyHtoDAsync")?;
                done(sys::cuEventRecord(*free, stream), "cuEventRecord")?;
            }
            self.next = 1 - self.next;
        }
        Ok(())
    }
}
