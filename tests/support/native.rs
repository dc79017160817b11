//! Generated host code and the memory that tests call it with.
#![allow(unsafe_code, reason = "calls generated code")]

use nemo_ir::step::StepDims;
use nemo_ir::types::{Symbol, Type};
use nemo_kernels::host::{Listings, compile};
use nemo_kernels::spec::KernelSpec;
use nemo_kernels::target::HostTarget;
use nemort::device::host::object;

/// Bytes at an address that is aligned to an element and to no more: files promise no better.
pub(crate) struct Buffer {
    room: Vec<u8>,
    at: usize,
    len: usize,
    written: bool,
}

impl Buffer {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let element = if bytes.len().is_multiple_of(4) { 4 } else { 2 };
        let mut room = vec![0u8; bytes.len() + 64];
        let barely = |at: &usize| (room.as_ptr() as usize + at) % (2 * element) == element;
        let at = (0..64).find(barely).expect("some byte of any sixteen is such a place");
        room[at..at + bytes.len()].copy_from_slice(bytes);
        Self { room, at, len: bytes.len(), written: true }
    }

    /// Room for a tensor. An element that the kernel forgets is a NaN.
    pub(crate) fn poisoned(ty: &Type, dims: StepDims) -> Self {
        let buffer = Self::new(&vec![0xFF; ty.bytes(|symbol| extent(dims, symbol)) as usize]);
        Self { written: false, ..buffer }
    }

    /// Whether it holds something before the kernel runs.
    pub(crate) fn is_written(&self) -> bool {
        self.written
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.at..][..self.len]
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.room[self.at..][..self.len]
    }
}

/// The value of a symbol, where kernels know it.
pub(crate) fn extent(dims: StepDims, symbol: Symbol) -> u64 {
    match symbol {
        Symbol::T => dims.tokens,
        Symbol::R => dims.seqs,
        Symbol::L => dims.rows,
        Symbol::P => dims.pages,
        Symbol::S | Symbol::N => 0,
    }
}

/// Kernels of one object.
pub(crate) struct Kernels(object::Code);

impl Kernels {
    pub(crate) fn compile(target: &HostTarget, specs: &[(String, KernelSpec)]) -> Self {
        let object = compile(target, specs, Listings::default()).unwrap_or_else(|error| panic!("{error}"));
        Self(object::load(&object.elf).unwrap_or_else(|error| panic!("{error}")))
    }

    /// Calls a kernel once for each thread; `args` are indices of buffers.
    pub(crate) fn call(
        &self,
        symbol: &str,
        buffers: &mut [Buffer],
        args: &[usize],
        dims: StepDims,
        threads: u32,
    ) {
        let pointers: Vec<*mut u8> = args
            .iter()
            .map(|index| {
                let buffer = &mut buffers[*index];
                buffer.room[buffer.at..].as_mut_ptr()
            })
            .collect();
        let function = self.0.function(symbol).unwrap_or_else(|error| panic!("{error}"));
        for thread in 0..threads {
            // SAFETY: the pointers are to buffers of the sizes that the spec and the step imply, which
            // live until the call returns; `function` was compiled from that spec.
            unsafe { function(pointers.as_ptr(), &raw const dims, thread, threads) };
        }
    }
}
