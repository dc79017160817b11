//! Replays a plan against the graphs it was made from.
//!
//! But for the rule of what may be written in place, the replay shares nothing with the planner: it runs the launches call by call over a memory that remembers which
//! value was last written where, and demands that every launch finds each operand intact where the graph says, that
//! states are taken at their latest version, and that no result overwrites what the same launch reads.

mod memory;

use std::collections::HashMap;
use std::fmt;

use nemo_ir::graph::{Block, Call, Node, Value};
use nemo_ir::ops::{Attr, Op};
use nemo_ir::plan::{self, Arg, Plan};
use nemo_ir::types::{Dim, Symbol, Type};
use nemo_kernels::spec::{KernelSpec, Layout};
use thiserror::Error;

use self::memory::{Memory, Tag};
use super::{Planned, RangedProgram, in_place_operand};

/// Where a plan does not do what its graph says.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("plan, {place}: {what}")]
pub struct CheckError {
    /// Program, call and launch.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

type Fault<T> = Result<T, String>;

fn require(holds: bool, what: impl fmt::Display) -> Fault<()> {
    if holds { Ok(()) } else { Err(what.to_string()) }
}

/// Checks that the plan computes what the programs say, whatever ran before.
///
/// # Errors
/// The first launch that would not.
pub fn check(programs: &[RangedProgram], planned: &Planned) -> Result<(), CheckError> {
    let here = |place: &str, what: String| CheckError { place: place.to_owned(), what };
    if programs.len() != planned.plan.programs.len() {
        return Err(here(
            "programs",
            format!("{} of them for {}", planned.plan.programs.len(), programs.len()),
        ));
    }
    for (ranged, program) in programs.iter().zip(&planned.plan.programs) {
        let RangedProgram { program: graph, tokens } = ranged;
        let name = format!("{} {tokens:?}", graph.phase.name());
        let same_shape = graph.phase == program.phase
            && graph.calls.len() == program.calls.len()
            && graph.blocks.len() == program.blocks.len();
        if !same_shape {
            return Err(here(&name, "phase, calls or blocks are not those of the graph".to_owned()));
        }
        if program.tokens() != *tokens {
            return Err(here(&name, format!("it is planned for {:?} tokens", program.tokens())));
        }
        let mut replay = Replay {
            planned,
            program,
            memory: Memory::new(program.arena_bytes),
            carried: HashMap::new(),
            versions: vec![0; planned.plan.states.len()],
        };
        for (index, (call, bound)) in graph.calls.iter().zip(&program.calls).enumerate() {
            let block = &graph.blocks[call.block];
            let place = || format!("{name}, call {index} of `{}`", block.name);
            require(
                call.block == bound.block && call.layer == bound.layer,
                "another block or layer is called",
            )
            .and_then(|()| replay.call(index, block, call, bound))
            .map_err(|what| here(&place(), what))?;
        }
    }
    Ok(())
}

/// What a value is in one run of a block.
#[derive(Debug, Clone)]
enum Content {
    /// Columns of what was written under a tag.
    Memory { tag: Tag, column: u64, stride: u64 },
    /// A state at one of its versions.
    State { state: usize, version: u64 },
    /// The step's logits.
    Logits,
    /// The step's next tokens.
    Next,
}

struct Replay<'a> {
    planned: &'a Planned,
    program: &'a plan::Program,
    memory: Memory,
    /// Values that the previous call gave, by name.
    carried: HashMap<String, (Tag, Type)>,
    /// By state of the plan: how often it was written.
    versions: Vec<u64>,
}

/// One call in the middle of its replay.
struct Frame<'a> {
    block: &'a Block,
    call: &'a Call,
    bound: &'a plan::Call,
    contents: HashMap<Value, Content>,
}

impl Replay<'_> {
    fn call(&mut self, number: usize, block: &Block, call: &Call, bound: &plan::Call) -> Fault<()> {
        let mut frame = Frame { block, call, bound, contents: HashMap::new() };
        let mut launches = self.program.blocks[bound.block].launches.iter();
        for index in block.order() {
            let value = Value { node: index, result: 0 };
            match &block.graph[index] {
                Node::Input { name, ty } => {
                    let (tag, given) =
                        self.carried.get(name).ok_or_else(|| format!("no call gave `{name}`"))?;
                    require(given == ty, format_args!("`{name}` is {given}, not {ty}"))?;
                    let stride = ty.width().unwrap_or(1);
                    frame.contents.insert(value, Content::Memory { tag: *tag, column: 0, stride });
                }
                Node::State { name, .. } => {
                    let state = self.state(&frame, name)?;
                    frame.contents.insert(value, Content::State { state, version: self.versions[state] });
                }
                Node::Op { op, attrs, .. } if op.name == "slice" => {
                    let content = slice(&frame, block.operands(index)[0], attrs)?;
                    frame.contents.insert(value, content);
                }
                Node::Op { op, attrs, results } => {
                    let launch = launches.next().ok_or_else(|| format!("`{}` is not launched", op.name))?;
                    let (_, spec) = self
                        .planned
                        .kernels
                        .get(launch.kernel)
                        .ok_or_else(|| format!("there is no kernel {}", launch.kernel))?;
                    require(
                        spec.op == *op && spec.attrs == *attrs,
                        format_args!("`{op:?}` launches `{spec}`"),
                    )?;
                    self.launch(&mut frame, number, value, &Launched { op, results, launch, spec })
                        .map_err(|what| format!("`{}`: {what}", op.name))?;
                }
                Node::Weight { .. } | Node::Step(_) | Node::Table(_) => {}
            }
        }
        require(launches.next().is_none(), "more is launched than the block has ops")?;
        self.carry(&frame)
    }

    fn launch(&mut self, frame: &mut Frame<'_>, call: usize, first: Value, run: &Launched<'_>) -> Fault<()> {
        let operands = frame.block.operands(first.node);
        let is_state = |n: usize| run.op.results[n].0.ends_with('\'');
        let places = run.op.places(operands.len()).ok_or("the number of operands is not that of the op")?;
        let computed: Vec<usize> = (0..run.results.len()).filter(|n| !is_state(*n)).collect();
        let spec = run.spec;
        let counts_fit = run.launch.args.len() == operands.len() + computed.len()
            && spec.operands.len() == operands.len()
            && spec.results.len() == computed.len();
        require(counts_fit, "the number of arguments is not that of the op")?;
        let (inputs, outputs) = run.launch.args.split_at(operands.len());

        let mut read = Vec::new();
        for (n, (operand, arg)) in operands.iter().zip(inputs).enumerate() {
            let extent = self
                .operand(frame, *operand, *arg, &spec.operands[n])
                .map_err(|w| format!("operand {n}: {w}"))?;
            read.extend(extent.map(|extent| (n, extent)));
        }
        for result in (0..run.results.len()).filter(|n| is_state(*n)) {
            let superseded = run.op.superseded(result);
            let given = superseded.and_then(|place| places.iter().position(|given| *given == place));
            let Some(Content::State { state, .. }) = given.and_then(|n| frame.contents.get(&operands[n]))
            else {
                return Err("it gives a state that it does not take".to_owned());
            };
            let state = *state;
            self.versions[state] += 1;
            let value = Value { node: first.node, result };
            frame.contents.insert(value, Content::State { state, version: self.versions[state] });
        }
        for ((result, arg), layout) in computed.into_iter().zip(outputs).zip(&spec.results) {
            let value = Value { node: first.node, result };
            let ty = &run.results[result];
            require(
                layout.ty == *ty && layout.row_stride == Layout::dense(ty.clone()).row_stride,
                format_args!("the kernel gives another layout than {ty}"),
            )?;
            let content = match (step_result(frame.block, value), arg) {
                (Some("logits"), Arg::Logits) => Content::Logits,
                (Some("next"), Arg::Next) => Content::Next,
                (None, Arg::Arena(start)) => {
                    let bytes = self.bytes(ty).ok_or("its size is unknown")?;
                    let end = start.checked_add(bytes).ok_or("it is too large")?;
                    apart(&read, (*start, end), in_place_operand(run.op, result, operands.len()))?;
                    let tag = Tag { call, value };
                    self.memory.write(tag, *start, end)?;
                    Content::Memory { tag, column: 0, stride: ty.width().unwrap_or(1) }
                }
                _ => return Err(format!("its result does not belong in {arg:?}")),
            };
            frame.contents.insert(value, content);
        }
        Ok(())
    }

    /// Checks one argument; gives the bytes that it reads of the arena.
    fn operand(
        &self,
        frame: &Frame<'_>,
        value: Value,
        arg: Arg,
        layout: &Layout,
    ) -> Fault<Option<(u64, u64)>> {
        let ty = frame.block.ty(value);
        self.aligned(arg, layout)?;
        require(layout.ty == ty, format_args!("the kernel takes {}, the graph gives {ty}", layout.ty))?;
        if let Node::Op { .. } | Node::Input { .. } | Node::State { .. } = frame.block.graph[value.node] {
            let content = frame.contents.get(&value).ok_or("it was not computed")?;
            return self.computed(frame, content, arg, &ty, layout);
        }
        require(layout.row_stride == Layout::dense(ty).row_stride, "the kernel takes a view of a constant")?;
        let fits = match (&frame.block.graph[value.node], arg) {
            (Node::Weight { name, ty }, Arg::Weight(n)) => self.weight_fits(frame, n, name, ty)?,
            (Node::Step(wanted), Arg::Step(input)) => *wanted == input,
            (Node::Table(wanted), Arg::Table(n)) => self.planned.plan.tables.get(n) == Some(wanted),
            _ => false,
        };
        require(fits, format_args!("{arg:?} is not what the graph takes"))?;
        Ok(None)
    }

    /// Whether an argument begins where its layout says. A CPU reads files in place, which promise an element's own alignment; whatever a
    /// GPU holds begins at a multiple of 256 bytes.
    fn aligned(&self, arg: Arg, layout: &Layout) -> Fault<()> {
        let is = match arg {
            Arg::Arena(offset) => offset.is_multiple_of(layout.align),
            _ if self.planned.plan.workspace.is_some() => layout.align <= Layout::ALIGNED,
            _ => layout.align <= layout.dtype().bytes(),
        };
        require(is, format_args!("the kernel takes it to be aligned to {} bytes", layout.align))
    }

    fn computed(
        &self,
        frame: &Frame<'_>,
        content: &Content,
        arg: Arg,
        ty: &Type,
        layout: &Layout,
    ) -> Fault<Option<(u64, u64)>> {
        match (content, arg) {
            (Content::Memory { tag, column, stride }, Arg::Arena(offset)) => {
                require(layout.row_stride == *stride, "the rows lie at another distance")?;
                let (start, end) = self.memory.find(*tag).ok_or("it was overwritten")?;
                let wanted = start + column * ty.dtype.bytes();
                require(wanted == offset, format_args!("it lies at {wanted}, the launch reads at {offset}"))?;
                Ok(Some((start, end)))
            }
            (Content::State { state, version }, Arg::State(n)) => {
                require(frame.bound.states.get(n) == Some(state), "it is bound to another state")?;
                require(self.versions[*state] == *version, "the state was overwritten")?;
                Ok(None)
            }
            (Content::Logits, Arg::Logits) | (Content::Next, Arg::Next) => Ok(None),
            _ => Err(format!("{arg:?} is not where it is")),
        }
    }

    /// Notes what the block gives to the next call, which must still be there.
    fn carry(&mut self, frame: &Frame<'_>) -> Fault<()> {
        self.carried.clear();
        for (name, value) in
            frame.block.outputs.iter().filter(|(_, v)| step_result(frame.block, *v).is_none())
        {
            let ty = frame.block.ty(*value);
            match frame.contents.get(value) {
                Some(Content::Memory { tag, column: 0, stride })
                    if Some(*stride) == ty.width() && self.memory.find(*tag).is_some() =>
                {
                    self.carried.insert(name.clone(), (*tag, ty));
                }
                _ => return Err(format!("`{name}` is not left for the next call")),
            }
        }
        Ok(())
    }

    fn state(&self, frame: &Frame<'_>, name: &str) -> Fault<usize> {
        let plan: &Plan = &self.planned.plan;
        let wanted = match frame.call.layer {
            Some(layer) => format!("layers.{layer}.{name}"),
            None => format!("{}.{name}", frame.block.name),
        };
        let mut bound = frame.bound.states.iter().copied();
        let found = bound.find(|state| plan.states.get(*state).is_some_and(|state| state.name == wanted));
        found.ok_or_else(|| format!("state `{wanted}` is not bound"))
    }

    fn weight_fits(&self, frame: &Frame<'_>, n: usize, name: &str, ty: &Type) -> Fault<bool> {
        let index = frame.bound.weights.get(n).ok_or_else(|| format!("weight {n} is not bound"))?;
        let weight =
            self.planned.plan.weights.get(*index).ok_or_else(|| format!("there is no weight {index}"))?;
        let full = format!("{}{name}", frame.call.prefix);
        let dtype = match weight.placement {
            plan::Placement::InPlace(dtype) => dtype,
            plan::Placement::WidenedToF32 => nemo_ir::types::Dtype::F32,
        };
        let elements = weight.shape.iter().product::<u64>() == ty.elements(|_| 0);
        Ok(weight.names.first() == Some(&full) && elements && dtype == ty.dtype)
    }

    fn bytes(&self, ty: &Type) -> Option<u64> {
        let rows = |symbol| match symbol {
            Symbol::T | Symbol::L => Some(self.program.max_tokens),
            Symbol::R => Some(self.program.max_seqs),
            Symbol::P | Symbol::S | Symbol::N => None,
        };
        ty.shape.iter().try_fold(ty.dtype.bytes(), |product, dim| {
            let extent = match dim {
                Dim::Const(n) => *n,
                Dim::Symbolic { factor, symbol } => factor.checked_mul(rows(*symbol)?)?,
            };
            product.checked_mul(extent)
        })
    }
}

/// An op and its launch.
struct Launched<'a> {
    op: Op,
    results: &'a [Type],
    launch: &'a plan::Launch,
    spec: &'a KernelSpec,
}

/// The name of a value that goes to the runtime.
fn step_result(block: &Block, value: Value) -> Option<&str> {
    let names = block.outputs.iter().filter(|(_, output)| *output == value).map(|(name, _)| name.as_str());
    names.into_iter().find(|name| matches!(*name, "logits" | "next"))
}

/// A result must not touch what its launch reads, unless it is computed in place.
fn apart(read: &[(usize, (u64, u64))], result: (u64, u64), in_place: Option<usize>) -> Fault<()> {
    for (operand, extent) in read {
        let apart = result.1 <= extent.0 || extent.1 <= result.0;
        let same = in_place == Some(*operand) && *extent == result;
        require(apart || same, format_args!("the result overwrites operand {operand}"))?;
    }
    Ok(())
}

fn slice(frame: &Frame<'_>, of: Value, attrs: &[Attr]) -> Fault<Content> {
    match (frame.contents.get(&of), attrs.first()) {
        (Some(Content::Memory { tag, column, stride }), Some(Attr::Int(offset))) => {
            Ok(Content::Memory { tag: *tag, column: column + offset, stride: *stride })
        }
        _ => Err("a slice of something that is not in the arena".to_owned()),
    }
}
