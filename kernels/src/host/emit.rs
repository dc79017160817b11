//! The emitter: the few instructions that generators are written in.
//!
//! Integers are i64, floats f32; a [`Lanes`] is as many f32 as a vector register of the target holds.
//! Tensors of other dtypes are widened when loaded and rounded when stored.

use std::cell::Cell;
use std::ops::Deref;

use inkwell::AddressSpace;
use inkwell::attributes::AttributeLoc;
use inkwell::basic_block::BasicBlock;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::types::VectorType;
use inkwell::values::IntValue;

use nemo_ir::types::{Dim, Symbol};

use crate::emit::{Any, Body, Float, Int, Lanes, Ptr, built};
use crate::spec::{KernelSpec, Layout};
use crate::target::HostTarget;

/// Emits the body of one kernel.
pub struct Emit<'c, 'm> {
    body: Body<'c, 'm>,
    entry: BasicBlock<'c>,
    target: &'m HostTarget,
    spec: &'m KernelSpec,
    /// Bytes of scratch on the stack so far.
    pub(super) stack: Cell<u64>,
}

impl<'c, 'm> Deref for Emit<'c, 'm> {
    type Target = Body<'c, 'm>;

    fn deref(&self) -> &Self::Target {
        &self.body
    }
}

impl<'c, 'm> Emit<'c, 'm> {
    /// Declares `symbol` in `module` and stands at its start.
    pub fn new(
        context: &'c Context,
        module: &'m Module<'c>,
        target: &'m HostTarget,
        symbol: &str,
        spec: &'m KernelSpec,
    ) -> Self {
        let (ptr, i32) = (context.ptr_type(AddressSpace::default()), context.i32_type());
        let ty = context.void_type().fn_type(&[ptr.into(), ptr.into(), i32.into(), i32.into()], false);
        let function = module.add_function(symbol, ty, None);
        let string = |key: &str, value: &str| {
            function.add_attribute(AttributeLoc::Function, context.create_string_attribute(key, value));
        };
        // The object must not call memset or memcpy: the runtime loads it without a linker.
        string("no-builtins", "");
        let width = (target.lanes() * 32).to_string();
        string("prefer-vector-width", &width);
        string("min-legal-vector-width", &width);
        let entry = context.append_basic_block(function, "entry");
        let start = context.append_basic_block(function, "body");
        let builder = context.create_builder();
        builder.position_at_end(start);
        let body = Body { context, builder, module, function };
        Self { body, entry, target, spec, stack: Cell::new(0) }
    }

    /// Ends the kernel.
    pub fn finish(self) {
        built(self.builder.build_return(None));
        self.builder.position_at_end(self.entry);
        let body = self.entry.get_next_basic_block().expect("`new` appended the body");
        built(self.builder.build_unconditional_branch(body));
    }

    /// The block of stack slots, which runs once.
    pub(super) fn entry_block(&self) -> BasicBlock<'c> {
        self.entry
    }

    /// What is being generated.
    pub fn spec(&self) -> &'m KernelSpec {
        self.spec
    }

    /// For what.
    pub fn target(&self) -> &'m HostTarget {
        self.target
    }

    /// f32 lanes of a register.
    pub fn width(&self) -> u32 {
        self.target.lanes()
    }

    // Arguments, step dimensions and shares.

    /// The n-th argument.
    pub fn arg(&self, index: usize) -> Ptr<'c> {
        let args = self.parameter(0).into_pointer_value();
        let slot = self.offset(args, self.int(8 * index as u64));
        let ptr = self.context.ptr_type(AddressSpace::default());
        built(self.builder.build_load(ptr, slot, "")).into_pointer_value()
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

    /// The value of a dimension: a constant, or what the step says.
    ///
    /// # Panics
    /// For slots and pages held by the engine, which no kernel needs.
    pub fn dim(&self, dim: Dim) -> Int<'c> {
        match dim {
            Dim::Const(n) => self.int(n),
            Dim::Symbolic { factor, symbol } => {
                let index = match symbol {
                    Symbol::T => 0,
                    Symbol::R => 1,
                    Symbol::L => 2,
                    Symbol::P => 3,
                    Symbol::S | Symbol::N => unreachable!("kernels index state by slot and page"),
                };
                let dims = self.parameter(1).into_pointer_value();
                let slot = self.offset(dims, self.int(8 * index));
                let value = built(self.builder.build_load(self.context.i64_type(), slot, ""));
                self.mul(value.into_int_value(), self.int(factor))
            }
        }
    }

    /// This thread's contiguous part of `0 .. total`.
    pub fn share(&self, total: Int<'c>) -> (Int<'c>, Int<'c>) {
        let (thread, threads) = (self.thread(), self.threads());
        let from = self.div(self.mul(total, thread), threads);
        let to = self.div(self.mul(total, self.add(thread, self.int(1))), threads);
        (from, to)
    }

    /// Index of this thread.
    pub fn thread(&self) -> Int<'c> {
        self.widen(self.parameter(2).into_int_value())
    }

    /// Number of threads.
    pub fn threads(&self) -> Int<'c> {
        self.widen(self.parameter(3).into_int_value())
    }

    fn parameter(&self, index: u32) -> Any<'c> {
        self.function.get_nth_param(index).expect("every kernel has four parameters")
    }

    fn widen(&self, value: IntValue<'c>) -> Int<'c> {
        built(self.builder.build_int_s_extend(value, self.context.i64_type(), ""))
    }

    // Vectors as wide as a register.

    /// A constant in every lane.
    pub fn lanes(&self, value: f64) -> Lanes<'c> {
        VectorType::const_vector(&vec![self.float(value); self.width() as usize])
    }

    /// One value in every lane.
    pub fn splat(&self, value: Float<'c>) -> Lanes<'c> {
        let poison = self.context.f32_type().vec_type(self.width()).get_poison();
        let zero = self.context.i32_type().const_zero();
        let first = built(self.builder.build_insert_element(poison, value, zero, ""));
        self.shuffle(first, first, &vec![0; self.width() as usize])
    }

    /// 0, 1, 2, … in the lanes.
    pub fn iota(&self) -> Lanes<'c> {
        let numbers: Vec<_> = (0..self.width()).map(|lane| self.float(f64::from(lane))).collect();
        VectorType::const_vector(&numbers)
    }
}
