//! The emitter of a GPU's kernels: one thread's view of its CTA.
//!
//! Indices are i32, and i64 where a tensor may pass 2^31 bytes; values are f32. Tensors of other dtypes are widened when
//! loaded and rounded when stored.

use std::cell::Cell;
use std::ops::Deref;

use inkwell::AddressSpace;
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::context::Context;
use inkwell::module::{Linkage, Module};
use inkwell::types::{AnyType, BasicMetadataTypeEnum};
use inkwell::values::{FunctionValue, GlobalValue};
use nemo_ir::plan::Geometry;
use nemo_ir::types::{Dim, Symbol};

use crate::emit::{Body, Int, Ptr, built};
use crate::spec::{KernelSpec, Layout, Steps};
use crate::target::Sm;

/// LLVM's calling convention of kernels.
const PTX_KERNEL: u32 = 71;
/// Address spaces of NVPTX.
const GLOBAL: u16 = 1;
pub(super) const SHARED: u16 = 3;
/// Bytes of a tensor map.
const MAP_BYTES: u32 = 128;
/// The symbol of dynamic shared memory, which all kernels of a module declare together.
const DYNAMIC: &str = "shared";

/// Emits the body of one kernel.
pub struct Emit<'c, 'm> {
    body: Body<'c, 'm>,
    sm: Sm,
    spec: &'m KernelSpec,
    geometry: &'m Geometry,
    dynamic: GlobalValue<'c>,
    /// Bytes of shared memory handed out so far.
    shared: Cell<u32>,
}

impl<'c, 'm> Deref for Emit<'c, 'm> {
    type Target = Body<'c, 'm>;

    fn deref(&self) -> &Self::Target {
        &self.body
    }
}

impl<'c, 'm> Emit<'c, 'm> {
    /// Declares `symbol` in `module` and stands at its start.
    pub(super) fn new(
        context: &'c Context,
        module: &'m Module<'c>,
        sm: Sm,
        symbol: &str,
        spec: &'m KernelSpec,
        geometry: &'m Geometry,
    ) -> Self {
        let (global, i32) = (context.ptr_type(AddressSpace::from(GLOBAL)), context.i32_type());
        let pointers = spec.operands.len() + spec.results.len() + 2;
        let mut parameters: Vec<BasicMetadataTypeEnum<'c>> = vec![global.into(); pointers];
        parameters.extend([BasicMetadataTypeEnum::from(i32); 4]);
        parameters.extend(vec![
            BasicMetadataTypeEnum::from(context.ptr_type(AddressSpace::default()));
            geometry.maps.len()
        ]);
        let function = module.add_function(symbol, context.void_type().fn_type(&parameters, false), None);
        function.set_call_conventions(PTX_KERNEL);
        let string = |key: &str, value: &str| {
            function.add_attribute(AttributeLoc::Function, context.create_string_attribute(key, value));
        };
        string("nvvm.maxntid", &geometry.threads.to_string());
        // Without a number of CTAs an assembler chooses one, and spills registers for its sake.
        string("nvvm.minctasm", "1");
        for map in 0..geometry.maps.len() {
            mark_map(context, function, (pointers + 4 + map) as u32);
        }
        let entry = context.append_basic_block(function, "entry");
        let builder = context.create_builder();
        builder.position_at_end(entry);
        let dynamic = module.get_global(DYNAMIC).unwrap_or_else(|| {
            let space = Some(AddressSpace::from(SHARED));
            let dynamic = module.add_global(context.i8_type().array_type(0), space, DYNAMIC);
            dynamic.set_linkage(Linkage::External);
            dynamic.set_alignment(1024);
            dynamic
        });
        let body = Body { context, builder, module, function };
        Self { body, sm, spec, geometry, dynamic, shared: Cell::new(0) }
    }

    /// Ends the kernel.
    ///
    /// # Errors
    /// When it uses another amount of shared memory than its geometry says: a mistake in its family.
    pub(super) fn finish(self) -> Result<(), String> {
        built(self.builder.build_return(None));
        let (used, said) = (self.shared.get(), self.geometry.shared);
        if used == said {
            Ok(())
        } else {
            Err(format!("it uses {used} bytes of shared memory, and its geometry says {said}"))
        }
    }

    /// What is being generated.
    pub fn spec(&self) -> &'m KernelSpec {
        self.spec
    }

    /// For what.
    pub fn sm(&self) -> Sm {
        self.sm
    }

    /// The steps that it is for.
    pub fn steps(&self) -> Steps {
        self.spec.steps.expect("`kernel` refuses specs without steps")
    }

    // Parameters.

    /// The n-th argument.
    pub fn arg(&self, index: usize) -> Ptr<'c> {
        self.parameter(index).into_pointer_value()
    }

    /// The operand of that name and its layout.
    pub fn operand(&self, name: &str) -> (Ptr<'c>, &'m Layout) {
        let (index, layout) = self.spec.operand(name);
        (self.arg(index), layout)
    }

    /// The first result and its layout.
    pub fn result(&self) -> (Ptr<'c>, &'m Layout) {
        (self.arg(self.spec.operands.len()), &self.spec.results[0])
    }

    /// The counters of the workspace, u32.
    pub fn counters(&self) -> Ptr<'c> {
        self.parameter(self.pointers()).into_pointer_value()
    }

    /// The partial results of the workspace.
    pub fn partials(&self) -> Ptr<'c> {
        self.parameter(self.pointers() + 1).into_pointer_value()
    }

    /// The value of a dimension, i32: a constant, or what the step says.
    ///
    /// # Panics
    /// For slots and pages held by the engine, which no kernel needs.
    pub fn dim(&self, dim: Dim) -> Int<'c> {
        match dim {
            Dim::Const(n) => self.word(n as u32),
            Dim::Symbolic { factor, symbol } => {
                let index = match symbol {
                    Symbol::T => 0,
                    Symbol::R => 1,
                    Symbol::L => 2,
                    Symbol::P => 3,
                    Symbol::S | Symbol::N => unreachable!("kernels index state by slot and page"),
                };
                self.times(self.parameter(self.pointers() + 2 + index).into_int_value(), factor)
            }
        }
    }

    /// The n-th tensor map.
    pub fn map(&self, index: usize) -> Ptr<'c> {
        self.parameter(self.pointers() + 6 + index).into_pointer_value()
    }

    fn pointers(&self) -> usize {
        self.spec.operands.len() + self.spec.results.len()
    }

    fn parameter(&self, index: usize) -> inkwell::values::BasicValueEnum<'c> {
        self.function.get_nth_param(index as u32).expect("the kernel was declared with it")
    }

    // The thread and its CTA.

    /// Index of this thread in its CTA, i32.
    pub fn thread(&self) -> Int<'c> {
        self.special("llvm.nvvm.read.ptx.sreg.tid.x")
    }

    /// Index of this CTA along x, y or z, i32.
    pub fn cta(&self, axis: usize) -> Int<'c> {
        self.special(
            [
                "llvm.nvvm.read.ptx.sreg.ctaid.x",
                "llvm.nvvm.read.ptx.sreg.ctaid.y",
                "llvm.nvvm.read.ptx.sreg.ctaid.z",
            ][axis],
        )
    }

    /// Number of CTAs along x, y or z, i32.
    pub fn ctas(&self, axis: usize) -> Int<'c> {
        self.special(
            [
                "llvm.nvvm.read.ptx.sreg.nctaid.x",
                "llvm.nvvm.read.ptx.sreg.nctaid.y",
                "llvm.nvvm.read.ptx.sreg.nctaid.z",
            ][axis],
        )
    }

    /// Holds registers down so far that a multiprocessor has room for so many CTAs.
    pub fn resident(&self, ctas: u32) {
        let attribute = self.context.create_string_attribute("nvvm.minctasm", &ctas.to_string());
        self.function.add_attribute(AttributeLoc::Function, attribute);
    }

    /// Threads of a CTA.
    pub fn threads(&self) -> u32 {
        self.geometry.threads
    }

    /// Warps of a CTA.
    pub fn warps(&self) -> u32 {
        self.geometry.threads.div_ceil(32)
    }

    fn special(&self, register: &str) -> Int<'c> {
        self.intrinsic(register, &[], &[])
    }

    // Shared memory.

    /// So many bytes of shared memory at a multiple of `align`.
    ///
    /// What a geometry says must be the sum of these, each rounded up to its alignment: [`SharedBytes`] adds alike.
    pub fn shared(&self, bytes: u32, align: u32) -> Ptr<'c> {
        let mut sum = SharedBytes(self.shared.get());
        let offset = sum.take(bytes, align);
        self.shared.set(sum.0);
        self.offset(self.dynamic.as_pointer_value(), self.word(offset))
    }
}

/// A sum of pieces of shared memory, as [`Emit::shared`] lays them out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SharedBytes(pub u32);

impl SharedBytes {
    /// Adds a piece and gives its offset.
    pub fn take(&mut self, bytes: u32, align: u32) -> u32 {
        let offset = self.0.next_multiple_of(align);
        self.0 = offset + bytes;
        offset
    }

    /// With another piece.
    pub fn and(mut self, bytes: u32, align: u32) -> Self {
        self.take(bytes, align);
        self
    }
}

/// Marks a parameter as a tensor map that lies in the parameters themselves.
fn mark_map(context: &Context, function: FunctionValue<'_>, index: u32) {
    let place = AttributeLoc::Param(index);
    let bytes = context.i8_type().array_type(MAP_BYTES).as_any_type_enum();
    let byval = Attribute::get_named_enum_kind_id("byval");
    function.add_attribute(place, context.create_type_attribute(byval, bytes));
    let align = Attribute::get_named_enum_kind_id("align");
    function.add_attribute(place, context.create_enum_attribute(align, 64));
    function.add_attribute(place, context.create_string_attribute("nvvm.grid_constant", ""));
}
