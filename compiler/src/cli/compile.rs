//! `nemoc compile`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use nemo_ir::types::Dtype;
use nemo_kernels::host::Listings;
use nemo_kernels::target::Target;
use nemoc::device::Device;
use nemoc::saturate::law::Class;
use nemoc::saturate::{self, Rules};
use nemoc::{CompileOptions, Stage, assemble, compile};

use super::emit::{self, Emit};
use super::table::bytes;
use super::{CliError, check_writable, source, write};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Path of a model file, a built-in name (see `nemoc models`), or a checkpoint directory
    #[arg(value_name = "MODEL")]
    model: String,
    /// Targets, separated by commas (see `nemoc targets`); `host` is this machine
    #[arg(long, value_name = "T[,T…]", value_delimiter = ',', required = true)]
    target: Vec<String>,
    /// The artifact to write; `<model name>.nemo` when absent
    #[arg(short, long, value_name = "out.nemo")]
    output: Option<PathBuf>,
    /// Dtype of the values between kernels and of the KV cache; the model's own when absent
    #[arg(long, value_name = "DTYPE")]
    activations: Option<Activations>,
    /// How the kernels read the weight matrices
    #[arg(long, value_name = "FORMAT", default_value = "stored")]
    weights_format: WeightsFormat,
    /// Sequences in one step
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = super::whole, allow_negative_numbers = true)]
    max_seqs: u64,
    /// Positions that a sequence may reach; the model's own limit when absent
    #[arg(long, value_name = "N", value_parser = super::whole, allow_negative_numbers = true)]
    max_context: Option<u64>,
    /// Tokens in one prefill step
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = super::whole, allow_negative_numbers = true)]
    chunk: u64,
    /// How operations are fused
    #[arg(long, value_name = "HOW", default_value = "saturate")]
    rules: RulesArg,
    /// What fusion may do to the bits: nothing, or leave out roundings and reorder sums
    #[arg(long, value_name = "WHAT", default_value = "reassociate")]
    numerics: NumericsArg,
    /// Device whose facts choose the fusions: a name (see `nemoc targets`) or a file that `nemoc calibrate` wrote
    #[arg(long, value_name = "NAME|FILE")]
    device: Option<String>,
    /// Assemble the kernels of GPU targets too, with the `ptxas` on PATH: nothing is left for the driver to compile
    #[arg(long)]
    cubin: bool,
    /// Write the texts of these stages (graph, fused, plan, llvm, ptx, asm) below a directory
    #[arg(long, value_name = "STAGE[,STAGE]=DIR", value_parser = Emit::parse)]
    emit: Option<Emit>,
    /// No progress and no summary
    #[arg(long)]
    quiet: bool,
}

/// `--activations`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Activations {
    Bf16,
    F32,
}

impl From<Activations> for Dtype {
    fn from(activations: Activations) -> Self {
        match activations {
            Activations::Bf16 => Self::Bf16,
            Activations::F32 => Self::F32,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WeightsFormat {
    Stored,
    Q8,
    Q4,
    Fp8,
}

/// `--rules`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RulesArg {
    /// Every operation is a kernel
    Off,
    /// The first law that lowers the cost, until none does
    Greedy,
    /// All laws in an e-graph, and the cheapest form of all
    Saturate,
}

/// `--numerics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum NumericsArg {
    /// The same bits as without fusion
    Exact,
    /// Intermediates need not be rounded, sums may be reordered (no law does the latter yet)
    Reassociate,
}

/// What the two options say.
pub(super) fn fusion(rules: RulesArg, numerics: NumericsArg) -> saturate::Options {
    saturate::Options {
        rules: match rules {
            RulesArg::Off => Rules::Off,
            RulesArg::Greedy => Rules::Greedy,
            RulesArg::Saturate => Rules::Saturate,
        },
        numerics: match numerics {
            NumericsArg::Exact => Class::Exact,
            NumericsArg::Reassociate => Class::Reassociating,
        },
    }
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let begin = Instant::now();
    match args.weights_format {
        WeightsFormat::Stored => {}
        WeightsFormat::Q8 => return Err(CliError::WeightsFormat("q8")),
        WeightsFormat::Q4 => return Err(CliError::WeightsFormat("q4")),
        WeightsFormat::Fp8 => return Err(CliError::WeightsFormat("fp8")),
    }
    if args.target.iter().any(String::is_empty) {
        return Err(CliError::EmptyTarget);
    }
    let targets = args.target.iter().map(|name| Target::parse(name)).collect::<Result<Vec<_>, _>>()?;
    let model = source::model(&args.model)?;
    let output = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{}.nemo", model.name)));
    check_writable(&output)?;
    let device = args.device.as_deref().map(Device::find).transpose()?;
    if args.cubin && !targets.iter().any(|target| matches!(target, Target::Gpu(_))) {
        let targets: Vec<_> = targets.iter().map(Target::to_string).collect();
        return Err(CliError::CubinWithoutGpu(targets.join(", ")));
    }
    let assembler = if args.cubin { Some(assemble::find()?) } else { None };
    let wants = |stage| args.emit.as_ref().is_some_and(|emit| emit.wants(stage));
    let options = CompileOptions {
        activations: args.activations.map(Dtype::from),
        max_seqs: args.max_seqs,
        max_context: args.max_context,
        chunk: args.chunk,
        fusion: fusion(args.rules, args.numerics),
        device,
        assembler,
        listings: Listings { llvm: wants(emit::Stage::Llvm), asm: wants(emit::Stage::Asm) },
        ..CompileOptions::new(targets)
    };

    let bar = spinner(args.quiet);
    let compiled = compile(&model, &options, &mut |stage| bar.set_message(describe(stage)));
    bar.finish_and_clear();
    let compiled = compiled?;
    if let Some(emit) = &args.emit {
        emit.write(&compiled.programs, &compiled.targets)?;
    }
    let artifact = compiled.to_bytes()?;
    write(&output, &artifact)?;
    if !args.quiet {
        let kernels: usize = compiled.targets.iter().map(|target| target.planned.kernels.len()).sum();
        let targets: Vec<_> = compiled.targets.iter().map(|target| target.target.to_string()).collect();
        eprintln!(
            "wrote {} for {}: {kernels} kernels, {}, in {:.1} s",
            output.display(),
            targets.join(", "),
            bytes(artifact.len() as u64),
            begin.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// A spinner with the stage and the time; nothing where standard error is no terminal.
fn spinner(quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn describe(stage: &Stage) -> String {
    match stage {
        Stage::Lower => "lowering".to_owned(),
        Stage::Plan { target } => format!("fusing and planning for {target}"),
        Stage::Codegen { target, kernels } => format!("generating {kernels} kernels for {target}"),
    }
}
