//! Whether a model fits a device: what it needs to run there, from the plan that it would run.

use nemo_ir::plan::{Phase, Placement, Plan, StateUnit, Weight};
use nemo_ir::step::PAGE_TOKENS;
use nemo_kernels::target::{Target, TargetError};
use nemo_models::Model;
use serde::Serialize;
use thiserror::Error;

use crate::compile::{MAX_CHUNK, MAX_SEQS};
use crate::device::Device;
use crate::fuse::{FuseError, fuse};
use crate::lower::{LowerError, LowerOptions, lower};
use crate::plan::{PlanError, PlanOptions, plan};
use crate::saturate;

/// Most devices that are tried together.
pub const MAX_DEVICES: u64 = 64;

/// Most memory that can be set aside, in GiB.
pub const MAX_RESERVE: f64 = 1e6;

/// How a model is to be run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FitOptions {
    /// Sequences at once, 1 to [`MAX_SEQS`].
    pub seqs: u64,
    /// Positions that each may reach; `None` for all that the model has.
    pub context: Option<u64>,
    /// Tokens in one prefill step, `seqs` to [`MAX_CHUNK`].
    pub chunk: u64,
    /// Memory that others need, 0 to [`MAX_RESERVE`] GiB.
    pub reserve_gib: f64,
}

impl Default for FitOptions {
    /// One sequence of all that the model reaches, chunks of 512 tokens, nothing reserved.
    fn default() -> Self {
        Self { seqs: 1, context: None, chunk: 512, reserve_gib: 0.0 }
    }
}

/// Bytes that a model takes on one device. They saturate instead of overflowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Need {
    /// Checkpoint tensors as they are stored.
    pub weights: u64,
    /// Keys and values: whole pages of every sequence, in the layers with attention.
    pub kv: u64,
    /// Scan and convolution state of every sequence.
    pub state: u64,
    /// Values between kernels, in the larger of the two programs.
    pub arena: u64,
    /// Logits of the largest step.
    pub logits: u64,
    /// Rotary angles, and the small weights once more in f32.
    pub tables: u64,
    /// What was set aside for others.
    pub reserve: u64,
}

impl Need {
    /// All of it on one device.
    pub fn sum(&self) -> u64 {
        self.on_each_of(1)
    }

    /// What each of some devices has to hold: weights, keys, values and state are split evenly, and each device has
    /// the rest for itself.
    pub fn on_each_of(&self, devices: u64) -> u64 {
        let sum = |bytes: &[u64]| bytes.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        let split = sum(&[self.weights, self.kv, self.state]).div_ceil(devices.max(1));
        sum(&[split, self.arena, self.logits, self.tables, self.reserve])
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// What the model needs.
    pub need: Need,
    /// Bytes that the device has.
    pub memory: u64,
    /// Positions that each sequence may reach.
    pub context: u64,
    /// Pages of each sequence.
    pub pages: u64,
    /// The smallest power of two of such devices that holds the model; `None` when [`MAX_DEVICES`] do not.
    pub devices: Option<u64>,
}

impl Fit {
    /// Whether one device is enough.
    pub fn fits(&self) -> bool {
        self.need.sum() <= self.memory
    }
}

/// Why the question has no answer.
#[derive(Debug, Error)]
pub enum FitError {
    /// An option outside its range.
    #[error("{option} is {value}; it must be {wanted}")]
    Option {
        /// The option as the command spells it.
        option: &'static str,
        /// Its value.
        value: String,
        /// What would be legal.
        wanted: String,
    },
    /// A device file without memory, on a system that does not say how much it has.
    #[error(
        "device `{0}` does not say how much memory it has, and neither does this system: give it `memory_bytes`"
    )]
    NoMemory(String),
    /// A block that no op takes.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// Blocks that cannot be fused: a mistake in the compiler.
    #[error("fusion failed, which is a mistake in nemoc: {0}")]
    Fuse(#[from] FuseError),
    /// A device that runs no known target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Values that cannot be laid out.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// What a model needs on a device, and whether it has it. A CPU whose file leaves its memory out has `machine` bytes.
///
/// # Errors
/// [`FitError`].
pub fn fit(
    model: &Model,
    device: &Device,
    options: FitOptions,
    machine: Option<u64>,
) -> Result<Fit, FitError> {
    let (sizes, reserve) = sizes(model, options)?;
    let memory = device.memory_bytes.or(machine).ok_or_else(|| FitError::NoMemory(device.name.clone()))?;
    let lowering = LowerOptions { max_context: sizes.max_context, ..LowerOptions::of(model) };
    let programs =
        Phase::ALL.iter().map(|phase| lower(model, *phase, lowering)).collect::<Result<Vec<_>, _>>()?;
    let fused = fuse(&programs, device, sizes, saturate::Options::default())?;
    let programs: Vec<_> = fused.into_iter().map(|(program, _)| program).collect();
    let target = Target::parse(&device.target)?;
    let planned = plan(model, &programs, (&target, device), sizes).map_err(as_fit_spells_it)?;
    let need = need(&planned.plan, model.dtype.bytes(), reserve);
    let powers = (0..=MAX_DEVICES.ilog2()).map(|power| 1_u64 << power);
    Ok(Fit {
        need,
        memory,
        context: sizes.max_context,
        pages: sizes.max_context.div_ceil(PAGE_TOKENS),
        devices: powers.into_iter().find(|devices| need.on_each_of(*devices) <= memory),
    })
}

/// The sizes of the plan, and the bytes of the reserve.
fn sizes(model: &Model, options: FitOptions) -> Result<(PlanOptions, u64), FitError> {
    let FitOptions { seqs, context, chunk, reserve_gib } = options;
    let context = context.unwrap_or(model.max_context);
    for (option, value, most, what) in [
        ("--seqs", seqs, MAX_SEQS, String::new()),
        ("--chunk", chunk, MAX_CHUNK, String::new()),
        ("--context", context, model.max_context, format!(", the context of `{}`", model.name)),
    ] {
        if !(1..=most).contains(&value) {
            let (value, wanted) = (value.to_string(), format!("1 to {most}{what}"));
            return Err(FitError::Option { option, value, wanted });
        }
    }
    // A step that decodes every sequence takes a token of each.
    if chunk < seqs {
        let (value, wanted) = (chunk.to_string(), format!("at least --seqs, which is {seqs}"));
        return Err(FitError::Option { option: "--chunk", value, wanted });
    }
    // No number of that name is in any range.
    if !(0.0..=MAX_RESERVE).contains(&reserve_gib) {
        let (value, wanted) = (format!("{reserve_gib:?} GiB"), format!("0 to {MAX_RESERVE} GiB"));
        return Err(FitError::Option { option: "--reserve", value, wanted });
    }
    let reserve = (reserve_gib * (1_u64 << 30) as f64).round() as u64;
    Ok((PlanOptions { max_seqs: seqs, max_context: context, chunk }, reserve))
}

fn need(plan: &Plan, stored: u64, reserve: u64) -> Need {
    let limits = plan.limits;
    let pages = limits.max_seqs.saturating_mul(limits.max_context.div_ceil(PAGE_TOKENS));
    let state = |unit: StateUnit, count: u64| {
        let states = plan.states.iter().filter(|state| state.per == unit);
        sum(states.map(|state| state.unit_bytes().saturating_mul(count)))
    };
    let tokens = plan.programs.iter().map(|program| program.max_tokens).max().unwrap_or(0);
    let angles = plan.tables.iter().map(|table| product(&[limits.max_context, table.head_dim, 4]));
    let widened = plan.weights.iter().filter(|weight| weight.placement == Placement::WidenedToF32);
    Need {
        weights: sum(plan.weights.iter().map(|weight| stored_bytes(weight, stored))),
        kv: state(StateUnit::Page, pages),
        state: state(StateUnit::Slot, limits.max_seqs),
        arena: plan.programs.iter().map(|program| program.arena_bytes).max().unwrap_or(0),
        logits: product(&[tokens, limits.vocab, 4]),
        tables: sum(angles.chain(widened.map(|weight| product(&weight.shape).saturating_mul(4)))),
        reserve,
    }
}

/// Bytes of a tensor in the checkpoint; small ones are in the dtype of the model.
fn stored_bytes(weight: &Weight, stored: u64) -> u64 {
    let element = match weight.placement {
        Placement::InPlace(dtype) => dtype.bytes(),
        Placement::WidenedToF32 => stored,
    };
    product(&weight.shape).saturating_mul(element)
}

fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |product, factor| product.saturating_mul(*factor))
}

fn sum(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

/// The planner names options as `nemoc compile` spells them.
fn as_fit_spells_it(error: PlanError) -> PlanError {
    match error {
        PlanError::Arena { phase, needed, tokens, option: "--max-seqs" } => {
            PlanError::Arena { phase, needed, tokens, option: "--seqs" }
        }
        other => other,
    }
}
