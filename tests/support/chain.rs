//! A fused op step by step: a kernel for each step of its recipe, and every value between them in memory.

use nemo_ir::ops::{OpArgs, Recipe, Source};
use nemo_ir::step::StepDims;
use nemo_ir::types::Type;
use nemo_kernels::spec::{KernelSpec, Layout};
use nemo_kernels::target::HostTarget;

use crate::native::{Buffer, Kernels};

/// The compiled steps of a fused op.
pub(crate) struct Chain {
    fused: KernelSpec,
    recipe: &'static Recipe,
    kernels: Kernels,
    /// The result types of each step.
    types: Vec<Vec<Type>>,
}

impl Chain {
    /// Compiles the steps; `None` for an op that is not fused.
    pub(crate) fn compile(target: &HostTarget, fused: &KernelSpec) -> Option<Self> {
        let recipe = Recipe::of(fused.op)?;
        let mut types: Vec<Vec<Type>> = Vec::new();
        let mut specs = Vec::new();
        for (index, step) in recipe.steps.iter().enumerate() {
            let layout = |source: &Source| match *source {
                Source::Operand(operand) => fused.present(operand).map(|place| fused.operands[place].clone()),
                Source::Step { step, result } => Some(Layout::dense(types[step][result].clone())),
            };
            let operands: Vec<Layout> = step.operands.iter().flatten().filter_map(layout).collect();
            let given: Vec<&Type> = operands.iter().map(|layout| &layout.ty).collect();
            let attrs = step.attrs(&fused.attrs);
            let args = OpArgs::new(step.op, &given, &attrs).unwrap_or_else(|error| panic!("{error}"));
            let results = (step.op.infer)(&args).unwrap_or_else(|error| panic!("{error}"));
            let dense = (0..results.len()).filter(|result| step.op.superseded(*result).is_none());
            let layouts = dense.map(|result| Layout::dense(results[result].clone())).collect();
            if step.op.name != "slice" {
                let spec =
                    KernelSpec { op: step.op, attrs, operands, results: layouts, steps: None, form: None };
                specs.push((format!("step{index}"), spec));
            }
            types.push(results);
        }
        Some(Self { fused: fused.clone(), recipe, kernels: Kernels::compile(target, &specs), types })
    }

    /// Runs the steps on the operands of the fused op, those that are present and in its order; states
    /// change in place. Gives the results that are no states.
    pub(crate) fn run(&self, operands: &mut Vec<Buffer>, dims: StepDims, threads: u32) -> Vec<Vec<u8>> {
        let count = operands.len();
        // Where each result of each step lies.
        let mut places: Vec<Vec<usize>> = Vec::new();
        for (index, step) in self.recipe.steps.iter().enumerate() {
            let place = |source: &Source| match *source {
                Source::Operand(operand) => self.fused.present(operand),
                Source::Step { step, result } => Some(places[step][result]),
            };
            let mut args: Vec<usize> = step.operands.iter().flatten().filter_map(place).collect();
            let mut results = Vec::new();
            for (result, ty) in self.types[index].iter().enumerate() {
                if let Some(state) = step.op.superseded(result) {
                    results.push(place(&step.operands[state].expect("states are given")).expect("present"));
                    continue;
                }
                results.push(operands.len());
                args.push(operands.len());
                operands.push(Buffer::poisoned(ty, dims));
            }
            if step.op.name == "slice" {
                let source = step.operands[0].expect("a slice has an x");
                let layout = match source {
                    Source::Operand(operand) => {
                        let place = self.fused.present(operand).expect("it is required");
                        self.fused.operands[place].clone()
                    }
                    Source::Step { step, result } => Layout::dense(self.types[step][result].clone()),
                };
                operands[args[1]] = self.sliced(index, operands[args[0]].bytes(), &layout);
            } else {
                self.kernels.call(&format!("step{index}"), operands, &args, dims, threads);
            }
            places.push(results);
        }
        let results = self.recipe.results.iter().enumerate();
        let results = results.filter(|(index, _)| self.fused.op.superseded(*index).is_none());
        let bytes = results.map(|(_, source)| match *source {
            Source::Step { step, result } => operands[places[step][result]].bytes().to_vec(),
            Source::Operand(_) => unreachable!("a result is computed"),
        });
        let bytes = bytes.collect();
        operands.truncate(count);
        bytes
    }

    fn sliced(&self, index: usize, bytes: &[u8], layout: &Layout) -> Buffer {
        let attrs = self.recipe.steps[index].attrs(&self.fused.attrs);
        let number = |attr: &nemo_ir::ops::Attr| attr.to_string().parse::<usize>().expect("an integer");
        let size = layout.dtype().bytes() as usize;
        let (offset, width) = (number(&attrs[0]) * size, number(&attrs[1]) * size);
        let rows = bytes.chunks(layout.row_stride as usize * size);
        Buffer::new(&rows.flat_map(|row| row[offset..][..width].to_vec()).collect::<Vec<_>>())
    }
}
