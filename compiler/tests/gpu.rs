//! GPU targets of whole systems: what their PTX is made of, and how often it is launched.

use nemo_ir::plan::Phase;
use nemo_kernels::nvptx::Form;
use nemo_kernels::target::{Sm, Target};
use nemo_models::Model;
use nemoc::{Code, CompileOptions, CompiledTarget, compile};

fn compiled(sm: Sm) -> CompiledTarget {
    let model = Model::builtin("nemotron-nano-9b-v2").unwrap();
    let options = CompileOptions { max_seqs: 64, chunk: 2048, ..CompileOptions::new(vec![Target::Gpu(sm)]) };
    compile(&model, &options, &mut |_| {}).unwrap().targets.remove(0)
}

fn ptx(target: &CompiledTarget) -> &str {
    match target.code.as_ref().unwrap() {
        Code::Gpu(module, _) => &module.ptx,
        Code::Host(_) => panic!("a GPU's target"),
    }
}

/// The text of one kernel of a program, found by its op.
fn kernel<'a>(target: &'a CompiledTarget, phase: Phase, op: &str) -> &'a str {
    let plan = &target.planned.plan;
    let program = plan.programs.iter().find(|program| program.phase == phase).unwrap();
    let mut launches = program.blocks.iter().flat_map(|block| &block.launches);
    let launch = launches.find(|launch| launch.op == op).unwrap_or_else(|| panic!("no {op} in {phase:?}"));
    let entry = format!(".visible .entry {}(", plan.kernels[launch.kernel].symbol);
    let text = ptx(target).split_once(&entry).unwrap().1;
    text.split(".visible .entry").next().unwrap()
}

#[test]
fn prefill_on_hopper_runs_on_warpgroups_fed_by_bulk_copies() {
    let target = compiled(Sm::Sm90);
    assert!(ptx(&target).contains(".version 8.0\n.target sm_90a\n"));
    for op in ["linear_relu2", "linear_add", "paged_attention"] {
        let text = kernel(&target, Phase::Prefill, op);
        for word in ["wgmma.mma_async", "cp.async.bulk.tensor.2d", "mbarrier.try_wait"] {
            assert!(text.contains(word), "{op} has no {word}");
        }
        assert!(!text.contains("cp.async.cg"), "{op} has threads copy");
    }
}

#[test]
fn prefill_on_ampere_runs_on_tensor_cores_fed_by_asynchronous_copies() {
    let target = compiled(Sm::Sm86);
    assert!(ptx(&target).contains(".version 7.1\n.target sm_86\n"));
    for op in ["linear_relu2", "linear_add", "paged_attention"] {
        let text = kernel(&target, Phase::Prefill, op);
        for word in ["mma.sync.aligned", "ldmatrix.sync", "cp.async.cg.shared.global"] {
            assert!(text.contains(word), "{op} has no {word}");
        }
    }
    assert!(kernel(&target, Phase::Prefill, "ssd_chunked_dt").contains("mma.sync.aligned"));
}

/// One launch a kernel of the explanation, layer by layer, built in the form that it tells.
#[test]
fn a_token_is_as_many_launches_as_explained() {
    for sm in Sm::ALL {
        let target = compiled(sm);
        for (program, report) in target.planned.plan.programs.iter().zip(&target.explanation.programs) {
            let launches: usize =
                program.calls.iter().map(|call| program.blocks[call.block].launches.len()).sum();
            assert_eq!(launches, report.totals().chosen.kernels, "{} on {}", report.label(), sm.name());
            for (block, (_, told)) in program.blocks.iter().zip(&report.blocks) {
                let kernels = block.launches.iter().map(|launch| &target.planned.kernels[launch.kernel].1);
                let built = kernels.map(|spec| (spec.op.name, spec.form.filter(|form| *form != Form::Sole)));
                let told = told.kernels.iter().map(|kernel| (kernel.op.as_str(), kernel.form));
                let (mut built, mut told) = (built.collect::<Vec<_>>(), told.collect::<Vec<_>>());
                built.sort_unstable();
                told.sort_unstable();
                assert_eq!(built, told, "{} of {} on {}", block.name, report.label(), sm.name());
            }
        }
        let one = &target.explanation.programs[0];
        let wanted = match sm {
            Sm::Sm86 => 146,
            Sm::Sm90 => 173,
        };
        assert_eq!(
            (one.label().as_str(), one.totals().chosen.kernels),
            ("decode-1-1", wanted),
            "{}",
            sm.name()
        );
    }
}
