//! Which form is chosen is a matter of the device and of the step, and the predicted numbers say why.

mod common;

use nemo_ir::graph::Block;
use nemo_ir::plan::Phase;
use nemo_kernels::nvptx::Form;
use nemo_models::{Model, builtin_names};
use nemoc::cost::Situation;
use nemoc::device::Device;
use nemoc::fuse::fuse;
use nemoc::lower::{LowerOptions, lower};
use nemoc::plan::PlanOptions;
use nemoc::saturate::{self, BlockReport, Fused, KernelReport, Options, Rules};

fn device(name: &str) -> Device {
    Device::builtin(name).unwrap_or_else(|| panic!("there is no device `{name}`"))
}

fn decode(device: &Device, seqs: u64) -> Situation<'_> {
    Situation::decode(device, seqs)
}

fn prefill(device: &Device, tokens: u64) -> Situation<'_> {
    Situation::prefill(device, tokens)
}

/// A block of Nano 9B v2 as it is lowered.
fn lowered(block: &str, phase: Phase) -> Block {
    let model = Model::builtin("nemotron-nano-9b-v2").expect("it is built in");
    let program = lower(&model, phase, LowerOptions::of(&model)).unwrap_or_else(|error| panic!("{error}"));
    let found = program.blocks.into_iter().find(|known| known.name == block);
    found.unwrap_or_else(|| panic!("there is no block `{block}`"))
}

fn with(block: &Block, at: &Situation<'_>, rules: Rules) -> Fused {
    let options = Options { rules, ..Options::default() };
    saturate::fuse(block, at, options).unwrap_or_else(|error| panic!("{error}"))
}

/// The form that is chosen.
fn chosen(block: &Block, at: &Situation<'_>) -> Fused {
    with(block, at, Rules::Saturate)
}

/// What a block costs in the very form that it has.
fn as_it_is(block: &Block, at: &Situation<'_>) -> BlockReport {
    with(block, at, Rules::Off).report
}

fn kernels(report: &BlockReport) -> Vec<&str> {
    report.kernels.iter().map(|kernel| kernel.op.as_str()).collect()
}

fn kernel<'a>(report: &'a BlockReport, op: &str) -> &'a KernelReport {
    let found = report.kernels.iter().find(|kernel| kernel.op == op);
    found.unwrap_or_else(|| panic!("no `{op}` among {:?}", kernels(report)))
}

/// Each form is the cheaper one where it was chosen: seconds of the own and of the other form in both situations.
#[track_caller]
fn each_at_home(one: (&Fused, &Situation<'_>), other: (&Fused, &Situation<'_>)) {
    for (home, guest, at) in [(one.0, other.0, one.1), (other.0, one.0, other.1)] {
        let (own, forced) = (home.report.chosen.seconds, as_it_is(&guest.block, at).chosen.seconds);
        let (own_kernels, other_kernels) = (kernels(&home.report), kernels(&guest.report));
        assert!(
            own < forced,
            "on {} at T = {}, {own_kernels:?} takes {own} s and {other_kernels:?} takes {forced} s",
            at.device.name,
            at.tokens
        );
    }
}

#[test]
fn the_convolution_joins_the_scan_on_a_cpu_and_the_product_on_a_large_gpu() {
    let (cpu, gpu) = (device("x86-64-v4"), device("h100"));
    let (on_cpu, on_gpu) = (decode(&cpu, 1), decode(&gpu, 1));
    let block = lowered("mamba", Phase::Decode);
    let (host, h100) = (chosen(&block, &on_cpu), chosen(&block, &on_gpu));
    assert_eq!(kernels(&host.report), ["norm_linear", "conv_ssd_norm", "linear_add"]);
    assert_eq!(
        kernels(&h100.report),
        ["norm_linear_conv", "ssd_recurrent_dt", "gated_rms_norm", "linear_add"]
    );
    each_at_home((&host, &on_cpu), (&h100, &on_gpu));

    // On the GPU the last head of a group waits for the others before it norms what they left: that takes longer than
    // a launch, and than the norm's own kernel.
    let forced = as_it_is(&host.block, &on_gpu);
    let fused = kernel(&forced, "conv_ssd_norm").seconds;
    let apart = ["ssd_recurrent_dt", "gated_rms_norm"].map(|op| kernel(&h100.report, op).seconds);
    assert!(fused > apart.iter().sum(), "{fused} and {apart:?} s");
    // What the CPU saves by it: a kernel, and the way of the activations between them.
    let (own, forced) = (host.report.chosen, as_it_is(&h100.block, &on_cpu).chosen);
    assert!(own.kernels < forced.kernels && own.bytes < forced.bytes, "{own:?} and {forced:?}");
}

#[test]
fn a_norm_is_repeated_for_one_row_and_shared_by_many() {
    let gpu = device("h100");
    let (single, few, many) = (decode(&gpu, 1), decode(&gpu, 8), decode(&gpu, 64));
    let block = lowered("mlp", Phase::Decode);
    let (one, all) = (chosen(&block, &single), chosen(&block, &many));
    assert_eq!(kernels(&one.report), ["norm_linear_relu2", "linear_add"]);
    assert_eq!(kernels(&all.report), ["rms_norm", "linear_relu2", "linear_add"]);
    each_at_home((&one, &single), (&all, &many));
    // One row: a launch is saved, and the row normed by every share costs less than that launch.
    let forced = as_it_is(&all.block, &single);
    let (fused, apart) = (kernel(&one.report, "norm_linear_relu2"), kernel(&forced, "linear_relu2"));
    let repeated = fused.seconds - apart.seconds;
    assert!(repeated > 0.0 && repeated < gpu.launch_us * 1e-6, "{repeated} s");
    // Norming eight rows in each costs more than a launch and the way of the rows.
    let (own, forced) = (chosen(&block, &few).report.chosen, as_it_is(&one.block, &few).chosen);
    assert!(own.seconds < forced.seconds && forced.seconds.is_finite(), "{own:?} and {forced:?}");
}

#[test]
fn where_weights_come_slowly_rows_are_normed_meanwhile() {
    let (small, large) = (device("a10g"), device("h100"));
    let (on_small, on_large) = (decode(&small, 8), decode(&large, 8));
    let block = lowered("mlp", Phase::Decode);
    let (a10g, h100) = (chosen(&block, &on_small), chosen(&block, &on_large));
    assert_eq!(kernels(&a10g.report), ["norm_linear_relu2", "linear_add"]);
    assert_eq!(kernels(&h100.report), ["rms_norm", "linear_relu2", "linear_add"]);
    each_at_home((&a10g, &on_small), (&h100, &on_large));

    // The first weights are asked for before the rows are normed: where memory takes longer to give them, less of the
    // norm is left to wait for. What is left is more than the norm's own kernel takes on the one, and less on the other.
    let left = |at: &Situation<'_>| {
        let (fused, apart) = (as_it_is(&a10g.block, at), as_it_is(&h100.block, at));
        let left = kernel(&fused, "norm_linear_relu2").seconds - kernel(&apart, "linear_relu2").seconds;
        (left, kernel(&apart, "rms_norm").seconds)
    };
    let (small, large) = (left(&on_small), left(&on_large));
    assert!(small.0 < small.1 && large.0 > large.1, "{small:?} and {large:?} s");
}

#[test]
fn a_product_is_built_as_its_rows_ask() {
    let forms = |device: &Device, at: Situation<'_>, phase: Phase| {
        let report = chosen(&lowered("mlp", phase), &at).report;
        assert_eq!(at.device.name, device.name);
        kernel(&report, "linear_add").form
    };
    let (small, large) = (device("a10g"), device("h100"));
    for (seqs, on_small, on_large) in
        [(1, Form::Stream, Form::Stream), (8, Form::Stream, Form::Stream), (64, Form::Tile, Form::Tile)]
    {
        assert_eq!(forms(&small, decode(&small, seqs), Phase::Decode), Some(on_small), "{seqs}");
        assert_eq!(forms(&large, decode(&large, seqs), Phase::Decode), Some(on_large), "{seqs}");
    }
    let prompt = |device: &Device| forms(device, prefill(device, 2048), Phase::Prefill);
    assert_eq!((prompt(&small), prompt(&large)), (Some(Form::Tile), Some(Form::Warpgroup)));
}

#[test]
fn the_heads_norm_follows_the_rows_that_want_logits() {
    let cpu = device("x86-64-v4");
    let (single, many) = (decode(&cpu, 1), decode(&cpu, 64));
    let block = lowered("head", Phase::Decode);
    let (one, all) = (chosen(&block, &single), chosen(&block, &many));
    assert_eq!(kernels(&one.report), ["gather_norm_linear_tile_max", "sample_tiled"]);
    assert_eq!(kernels(&all.report), ["gather_rms_norm", "linear_tile_max", "sample_tiled"]);
    each_at_home((&one, &single), (&all, &many));
    // Rows are normed by each core: 64 of them cost as much as that many launches, one of them less than one.
    let launch = cpu.launch_us * 1e-6;
    let repeated = |at: &Situation<'_>| {
        let fused = as_it_is(&one.block, at);
        let apart = as_it_is(&all.block, at);
        kernel(&fused, "gather_norm_linear_tile_max").seconds - kernel(&apart, "linear_tile_max").seconds
    };
    let (few, most) = (repeated(&single), repeated(&many));
    let apart = kernel(&as_it_is(&all.block, &many), "gather_rms_norm").seconds;
    assert!(few < launch + kernel(&as_it_is(&all.block, &single), "gather_rms_norm").seconds, "{few} s");
    assert!(most > apart, "{most} s in the product, {apart} s apart");
    // A prompt wants the logits of its last row alone, however long it is.
    let prompt = chosen(&lowered("head", Phase::Prefill), &prefill(&cpu, 512));
    assert_eq!(kernels(&prompt.report), ["gather_norm_linear_tile_max", "sample_tiled"]);
}

#[test]
fn what_pays_only_together_is_found() {
    // Laws one at a time stop where the next one alone costs more; what they leave on the table is told of.
    let gpu = device("h100");
    for (name, seqs) in [("mamba", 64), ("attention", 64), ("attention", 1)] {
        let report = chosen(&lowered(name, Phase::Decode), &decode(&gpu, seqs)).report;
        assert!(report.chosen.seconds < report.greedy.seconds * 0.99, "`{name}`: {report:?}");
    }
}

/// The programs of every built-in system as they are built, one token or a prompt at a time.
#[test]
fn every_builtin_system() {
    for name in builtin_names() {
        let model = Model::builtin(name).unwrap_or_else(|| panic!("{name} does not parse"));
        let sizes = PlanOptions { max_seqs: 64, max_context: model.max_context, chunk: 512 };
        let options = LowerOptions::of(&model);
        let lowered =
            Phase::ALL.map(|phase| lower(&model, phase, options).unwrap_or_else(|error| panic!("{error}")));
        for (device, phase) in
            [("a10g", Phase::Decode), ("x86-64-v4", Phase::Decode), ("x86-64-v4", Phase::Prefill)]
        {
            let programs: Vec<_> = lowered.iter().filter(|program| program.phase == phase).cloned().collect();
            let device = self::device(device);
            let fused = fuse(&programs, &device, sizes, Options::default());
            let fused = fused.unwrap_or_else(|error| panic!("{name}: {error}"));
            let (ranged, _) = &fused[0];
            let blocks: Vec<String> = ranged.program.blocks.iter().map(ToString::to_string).collect();
            let text = format!("{}\n\n{}", ranged.label(), blocks.join("\n"));
            insta::assert_snapshot!(format!("{name}-{}-{}", device.name, phase.name()), text);
        }
    }
}
