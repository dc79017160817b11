//! From specs to an object file.

use inkwell::OptimizationLevel;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{
    CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple,
};

use nemo_ir::ops::{Family, Recipe};
use nemo_ir::types::Dtype;

use super::elementwise::{map, pointwise};
use super::emit::Emit;
use super::{HostError, Listings, Object};
use crate::chain::Chain;
use crate::spec::KernelSpec;
use crate::target::{Feature, HostTarget};
use crate::{attention, head, linear, norm, scan};

/// Bytes of stack that a kernel may use for its work space: what the runtime keeps free, less its own frames.
const MAX_STACK: u64 = 1 << 20;

/// Writes the body of one kernel.
pub(crate) type Generator = for<'c, 'm> fn(&Emit<'c, 'm>) -> Result<(), String>;

/// Generates `(symbol, spec)` each and compiles them into one object.
///
/// # Errors
/// [`HostError`].
pub fn compile(
    target: &HostTarget,
    kernels: &[(String, KernelSpec)],
    listings: Listings,
) -> Result<Object, HostError> {
    let refused = |message: String| HostError::Llvm { target: target.to_string(), message };
    let machine = machine(target).map_err(refused)?;
    let context = Context::create();
    let module = context.create_module("kernels");
    module.set_triple(&machine.get_triple());
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    for (symbol, spec) in kernels {
        generate(&context, &module, target, symbol, spec)?;
    }
    module.verify().map_err(|message| refused(message.to_string()))?;
    optimise(&module, &machine).map_err(refused)?;
    let llvm = listings.llvm.then(|| module.print_to_string().to_string());
    // Emission lowers the module in place: each kind of output gets a module of its own.
    let emit = |kind| {
        let own = module.clone();
        machine.write_to_memory_buffer(&own, kind).map_err(|message| refused(message.to_string()))
    };
    let elf = emit(FileType::Object)?.as_slice().to_vec();
    let asm = if listings.asm {
        Some(String::from_utf8_lossy(emit(FileType::Assembly)?.as_slice()).trim_end_matches('\0').to_owned())
    } else {
        None
    };
    Ok(Object { elf, llvm, asm })
}

fn generate<'c>(
    context: &'c Context,
    module: &Module<'c>,
    target: &HostTarget,
    symbol: &str,
    spec: &KernelSpec,
) -> Result<(), HostError> {
    let refused = |why: &str| HostError::Unsupported { spec: spec.to_string(), why: why.to_owned() };
    let generator = generator(spec).ok_or_else(|| refused("the op has no generator"))?;
    let mut layouts = spec.operands.iter().chain(&spec.results);
    if layouts.any(|layout| matches!(layout.ty.dtype, Dtype::F16 | Dtype::U8)) {
        return Err(refused("only f32, bf16 and i32 tensors have host kernels"));
    }
    let emit = Emit::new(context, module, target, symbol, spec);
    generator(&emit).map_err(|why| refused(&why))?;
    let stack = emit.stack.get();
    if stack > MAX_STACK {
        return Err(refused(&format!(
            "its work space takes {stack} bytes of stack, and threads have {MAX_STACK} for it"
        )));
    }
    emit.finish();
    Ok(())
}

/// A fused op belongs to the family whose work dominates it, whatever the table says.
fn generator(spec: &KernelSpec) -> Option<Generator> {
    if pointwise(spec.op.name).is_some() {
        return Some(map);
    }
    let of_family = match spec.op.family {
        _ if Recipe::of(spec.op).is_some_and(|recipe| recipe.step("linear").is_some()) => {
            linear::host::generator
        }
        Family::Norm => norm::host::generator,
        Family::Linear => linear::host::generator,
        Family::Ffn => return None,
        Family::Scan => scan::host::generator,
        Family::Attention => attention::host::generator,
        Family::Head => head::host::generator,
    };
    of_family(&Chain::of(spec))
}

fn machine(target: &HostTarget) -> Result<TargetMachine, String> {
    Target::initialize_x86(&InitializationConfig::default());
    let triple = TargetTriple::create("x86_64-unknown-linux-gnu");
    let features: Vec<_> = [Feature::Avx512Bf16, Feature::Avx512Vnni]
        .into_iter()
        .filter(|feature| target.has(*feature))
        .map(|feature| format!("+{}", feature.name()))
        .collect();
    Target::from_triple(&triple)
        .map_err(|message| message.to_string())?
        .create_target_machine(
            &triple,
            target.level().name(),
            &features.join(","),
            OptimizationLevel::Default,
            RelocMode::PIC,
            CodeModel::Small,
        )
        .ok_or_else(|| "no target machine for x86-64".to_owned())
}

/// Generators write vector code: the vectorisers would only add bulk.
fn optimise(module: &Module<'_>, machine: &TargetMachine) -> Result<(), String> {
    let options = PassBuilderOptions::create();
    options.set_loop_vectorization(false);
    options.set_loop_slp_vectorization(false);
    options.set_verify_each(false);
    module.run_passes("default<O2>", machine, options).map_err(|message| message.to_string())
}
