//! From specs to the text of a PTX module.

use inkwell::OptimizationLevel;
use inkwell::context::Context;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{
    CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple,
};
use nemo_ir::artifact::CudaNeeds;

use super::{Emit, Kernel, NvptxError, kernel};
use crate::spec::KernelSpec;
use crate::target::Sm;

/// PTX and the text that it came from.
#[derive(Debug, Clone, Default)]
pub struct Module {
    /// The PTX, with one entry per spec, named as asked.
    pub ptx: String,
    /// Optimised LLVM IR, where it was asked for.
    pub llvm: Option<String>,
}

/// The passes that run before the back end's own. Not a standard pipeline: those take vector loads apart
/// (`vector-combine`), and what is put together again is no longer known to be read-only; and they unroll loops that a
/// generator has unrolled as far as registers last.
const PASSES: &str = "function(sroa,early-cse<memssa>,simplifycfg,instcombine<no-verify-fixpoint>,\
                      loop-mssa(loop-rotate,licm),loop(indvars,loop-deletion),gvn,\
                      instcombine<no-verify-fixpoint>,simplifycfg,adce)";

/// What LLVM is told of a target, and what the PTX then asks of a machine.
struct Machine {
    cpu: &'static str,
    feature: &'static str,
    needs: CudaNeeds,
}

/// The oldest PTX that has the target's instructions: every driver of the R525 branch takes both.
fn machine(sm: Sm) -> Machine {
    let needs = |capability, forward, ptx| CudaNeeds { capability, forward, ptx, driver: 525 };
    match sm {
        Sm::Sm86 => Machine { cpu: "sm_86", feature: "+ptx71", needs: needs((8, 6), true, (7, 1)) },
        // wgmma is in the instruction set of this one architecture, not of its successors.
        Sm::Sm90 => Machine { cpu: "sm_90a", feature: "+ptx80", needs: needs((9, 0), false, (8, 0)) },
    }
}

/// What a GPU must have to run the target's kernels.
pub fn needs(sm: Sm) -> CudaNeeds {
    machine(sm).needs
}

/// The architecture that the target's PTX is for, as assemblers name it.
pub fn arch(sm: Sm) -> &'static str {
    machine(sm).cpu
}

/// Generates `(symbol, spec)` each into one module; `listing` keeps its LLVM IR.
///
/// # Errors
/// [`NvptxError`].
pub fn compile(sm: Sm, kernels: &[(String, KernelSpec)], listing: bool) -> Result<Module, NvptxError> {
    let decided = kernels.iter().map(|(symbol, spec)| Ok((symbol.clone(), spec, kernel(sm, spec)?)));
    let decided = decided.collect::<Result<Vec<_>, NvptxError>>()?;
    emit_text(sm, &Context::create(), &decided, listing)
}

/// As [`compile`], of kernels that were decided upon.
pub(super) fn emit_text(
    sm: Sm,
    context: &Context,
    kernels: &[(String, &KernelSpec, Kernel)],
    listing: bool,
) -> Result<Module, NvptxError> {
    let refused = |message: String| NvptxError::Llvm { sm: sm.name(), message };
    let target = target_machine(sm).map_err(refused)?;
    let module = context.create_module("kernels");
    module.set_triple(&target.get_triple());
    module.set_data_layout(&target.get_target_data().get_data_layout());
    for (symbol, spec, kernel) in kernels {
        let emit = Emit::new(context, &module, sm, symbol, spec, &kernel.candidate.geometry);
        (kernel.body)(&emit).and_then(|()| emit.finish()).map_err(|why| NvptxError::Unsupported {
            sm: sm.name(),
            spec: spec.to_string(),
            why,
        })?;
    }
    module.verify().map_err(|message| refused(message.to_string()))?;
    let options = PassBuilderOptions::create();
    options.set_verify_each(false);
    module.run_passes(PASSES, &target, options).map_err(|message| refused(message.to_string()))?;
    let llvm = listing.then(|| module.print_to_string().to_string());
    let text = target.write_to_memory_buffer(&module, FileType::Assembly);
    let text = text.map_err(|message| refused(message.to_string()))?;
    let ptx = with_rolled_loops(String::from_utf8_lossy(text.as_slice()).trim_end_matches('\0'));
    Ok(Module { ptx, llvm })
}

/// Tells the assembler of each kernel to leave its loops as they are. It would unroll them until the registers that a
/// kernel may have are used up, and then spill some; generators have unrolled where it pays. LLVM has no way to say so
/// for a whole kernel.
fn with_rolled_loops(ptx: &str) -> String {
    let mut text = String::with_capacity(ptx.len());
    let mut is_directive = false;
    for line in ptx.lines() {
        // The body of a kernel begins after the directives on its threads.
        if line == "{" && is_directive {
            text.push_str(".pragma \"nounroll\";\n");
        }
        is_directive = line.starts_with(".maxntid") || line.starts_with(".minnctapersm");
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn target_machine(sm: Sm) -> Result<TargetMachine, String> {
    Target::initialize_nvptx(&InitializationConfig::default());
    let triple = TargetTriple::create("nvptx64-nvidia-cuda");
    let Machine { cpu, feature, .. } = machine(sm);
    Target::from_triple(&triple)
        .map_err(|message| message.to_string())?
        .create_target_machine(
            &triple,
            cpu,
            feature,
            OptimizationLevel::Aggressive,
            RelocMode::Default,
            CodeModel::Default,
        )
        .ok_or_else(|| format!("no target machine for {cpu}"))
}
