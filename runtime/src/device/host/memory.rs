//! Anonymous memory: zeroed, page-aligned, backed by huge pages where the system has them, and not
//! taken from the machine before it is touched.

#![allow(unsafe_code, reason = "mmap and views of the mapping")]

use std::ops::Range;
use std::ptr::NonNull;

use thiserror::Error;

use super::super::human_bytes;

/// Memory that cannot be had.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// More than the machine has left.
    #[error("{what} needs {}, but only {} of memory is available{hint}", human_bytes(*needed), human_bytes(*available))]
    TooLarge {
        /// What it is for.
        what: String,
        /// Bytes wanted.
        needed: u64,
        /// Bytes left.
        available: u64,
        /// What to do about it, with its separator.
        hint: &'static str,
    },
    /// The system refused.
    #[error("cannot map {} of memory: {source}", human_bytes(*needed))]
    Refused {
        /// Bytes wanted.
        needed: u64,
        /// What the system said.
        source: std::io::Error,
    },
}

/// An anonymous mapping.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, whichever thread that is on.
unsafe impl Send for Region {}
// SAFETY: through a shared reference it can only be read, or written through raw pointers by code that
// answers for the absence of races itself.
unsafe impl Sync for Region {}

impl Region {
    /// `len` zero bytes; at least one page is mapped.
    ///
    /// # Errors
    /// [`MemoryError::Refused`] when the system has no such range.
    pub fn new(len: u64) -> Result<Self, MemoryError> {
        let refused = |source| MemoryError::Refused { needed: len, source };
        let size = usize::try_from(len.max(1)).map_err(|error| refused(std::io::Error::other(error)))?;
        // SAFETY: a fresh anonymous mapping touches no existing memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(refused(std::io::Error::last_os_error()));
        }
        let Some(start) = NonNull::new(start.cast::<u8>()) else {
            return Err(refused(std::io::Error::other("mapped at address zero")));
        };
        // SAFETY: the range was just mapped; advice changes no contents, and its failure is harmless.
        unsafe { libc::madvise(start.as_ptr().cast(), size, libc::MADV_HUGEPAGE) };
        Ok(Self { start, len: size })
    }

    /// First byte; kernels read and write through it.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Bytes mapped for use.
    pub fn size(&self) -> usize {
        self.len
    }

    /// The first `count` elements.
    ///
    /// Nothing may write to them through [`Region::as_ptr`] while the slice lives; devices keep to that
    /// by lending slices from `&self` and running kernels from `&mut self`.
    pub fn slice<T: bytemuck::Pod>(&self, count: usize) -> &[T] {
        let bytes = self.bytes();
        let wanted = count.saturating_mul(size_of::<T>()).min(bytes.len() / size_of::<T>() * size_of::<T>());
        bytemuck::cast_slice(&bytes[..wanted])
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is `len` initialised (zero) bytes and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// All of it, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Gives a page-aligned range a protection, for loaded code.
    pub(super) fn protect(&self, range: Range<usize>, protection: libc::c_int) -> std::io::Result<()> {
        if range.is_empty() || range.end > self.len {
            return Ok(());
        }
        // SAFETY: the range lies inside the mapping; what may no longer be written is never written again,
        // because the loader gives no `&mut` to a region that it has protected.
        let status =
            unsafe { libc::mprotect(self.start.as_ptr().add(range.start).cast(), range.len(), protection) };
        if status == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and no reference outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Refuses what the machine has no memory left for.
///
/// # Errors
/// [`MemoryError::TooLarge`]; nothing where the system does not say what is left.
pub fn check_available(what: &str, needed: u64, hint: &'static str) -> Result<(), MemoryError> {
    match available() {
        Some(available) if needed > available => {
            Err(MemoryError::TooLarge { what: what.to_owned(), needed, available, hint })
        }
        _ => Ok(()),
    }
}

/// Bytes that can be had without swapping: the machine's, or a control group's where that is less.
pub fn available() -> Option<u64> {
    super::available::available()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_zero_and_writable() {
        let mut region = Region::new(10_000).unwrap();
        assert!(region.bytes().iter().all(|byte| *byte == 0));
        region.bytes_mut()[9_999] = 7;
        assert_eq!(region.slice::<u8>(10_000)[9_999], 7);
        assert_eq!(region.slice::<u32>(usize::MAX).len(), 2_500);
    }

    #[test]
    fn a_region_larger_than_the_address_space_is_refused() {
        let message = Region::new(1 << 60).unwrap_err().to_string();
        assert!(message.starts_with("cannot map 1073741824.0 GiB of memory"), "{message}");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_numbers() {
        let message =
            check_available("the KV cache", 1 << 60, "; lower --max-context").unwrap_err().to_string();
        assert!(message.starts_with("the KV cache needs 1073741824.0 GiB, but only "), "{message}");
        assert!(message.ends_with("; lower --max-context"), "{message}");
        check_available("nothing", 1, "").unwrap();
    }
}
