//! Loops and branches of generated code.

use inkwell::IntPredicate;
use inkwell::values::IntValue;

use super::{Any, Body, Int, built};

impl<'c> Body<'c, '_> {
    /// Runs `body` for `i` from `from` while below `to`, in steps of `step`, carrying values along.
    pub fn fold(
        &self,
        (from, to, step): (Int<'c>, Int<'c>, u64),
        initial: &[Any<'c>],
        body: impl FnOnce(Int<'c>, &[Any<'c>]) -> Vec<Any<'c>>,
    ) -> Vec<Any<'c>> {
        let before = self.here();
        let (head, inside, after) = (self.block("head"), self.block("loop"), self.block("done"));
        built(self.builder.build_unconditional_branch(head));
        self.builder.position_at_end(head);
        let index = built(self.builder.build_phi(from.get_type(), ""));
        index.add_incoming(&[(&from, before)]);
        let carried: Vec<_> = initial
            .iter()
            .map(|value| {
                let phi = built(self.builder.build_phi(value.get_type(), ""));
                phi.add_incoming(&[(value, before)]);
                phi
            })
            .collect();
        let i = index.as_basic_value().into_int_value();
        built(self.builder.build_conditional_branch(self.cmp(IntPredicate::SLT, i, to), inside, after));

        self.builder.position_at_end(inside);
        let values: Vec<_> = carried.iter().map(|phi| phi.as_basic_value()).collect();
        let next = body(i, &values);
        let i_next = self.plus(i, step);
        let end = self.here();
        index.add_incoming(&[(&i_next, end)]);
        for (phi, value) in carried.iter().zip(&next) {
            phi.add_incoming(&[(value, end)]);
        }
        built(self.builder.build_unconditional_branch(head));
        self.builder.position_at_end(after);
        values
    }

    /// Runs `body` for each `i` from `from` while below `to`.
    pub fn each(&self, from: Int<'c>, to: Int<'c>, body: impl FnOnce(Int<'c>)) {
        self.step_by(from, to, 1, body);
    }

    /// As [`Body::each`], in steps of `step`.
    pub fn step_by(&self, from: Int<'c>, to: Int<'c>, step: u64, body: impl FnOnce(Int<'c>)) {
        self.fold((from, to, step), &[], |i, _| {
            body(i);
            Vec::new()
        });
    }

    /// Runs `body` where the condition holds.
    pub fn when(&self, condition: IntValue<'c>, body: impl FnOnce()) {
        self.choose(
            condition,
            || {
                body();
                Vec::new()
            },
            Vec::new,
        );
    }

    /// Runs one of two bodies and gives its values.
    pub fn choose(
        &self,
        condition: IntValue<'c>,
        then: impl FnOnce() -> Vec<Any<'c>>,
        otherwise: impl FnOnce() -> Vec<Any<'c>>,
    ) -> Vec<Any<'c>> {
        let (yes, no, after) = (self.block("then"), self.block("else"), self.block("join"));
        built(self.builder.build_conditional_branch(condition, yes, no));
        self.builder.position_at_end(yes);
        let first = then();
        let first_end = self.here();
        built(self.builder.build_unconditional_branch(after));
        self.builder.position_at_end(no);
        let second = otherwise();
        let second_end = self.here();
        built(self.builder.build_unconditional_branch(after));
        self.builder.position_at_end(after);
        first
            .iter()
            .zip(&second)
            .map(|(a, b)| {
                let phi = built(self.builder.build_phi(a.get_type(), ""));
                phi.add_incoming(&[(a, first_end), (b, second_end)]);
                phi.as_basic_value()
            })
            .collect()
    }

    fn here(&self) -> inkwell::basic_block::BasicBlock<'c> {
        self.builder.get_insert_block().expect("the builder always stands in a block")
    }

    fn block(&self, name: &str) -> inkwell::basic_block::BasicBlock<'c> {
        let function = self.here().get_parent().expect("blocks belong to the kernel");
        self.context.append_basic_block(function, name)
    }
}
