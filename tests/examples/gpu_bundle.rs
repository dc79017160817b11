//! Writes what a machine with a GPU and without a compiler needs to check and measure kernels and models:
//! `gpu_bundle OUT [--ops a,b]`. With `--ops` the kernel cases of those ops alone, and no models.

use std::error::Error;
use std::fs;
use std::path::Path;

use nemo_ir::types::Dtype;
use nemo_kernels::target::{HostTarget, Sm, Target};
use nemo_models::Model;
use nemo_tests::bundle;
use nemo_tests::golden::{FIXTURES, folder, model};
use nemoc::{CompileOptions, compile};
use ptx_sim::isa;

/// Systems whose speed is measured.
const SYSTEMS: [&str; 2] = ["nemotron-nano-9b-v2", "llama-3.1-nemotron-nano-8b-v1"];

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (out, only) = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [out] => (out.to_owned(), Vec::new()),
        [out, "--ops", ops] => (out.to_owned(), ops.split(',').map(str::to_owned).collect()),
        _ => return Err("usage: gpu_bundle OUT [--ops a,b]".into()),
    };
    let out = Path::new(&out);
    for sm in Sm::ALL {
        let count = bundle::write(&out.join("cases"), sm, &only)?;
        if count == 0 {
            return Err("no op of these names can be drawn".into());
        }
        println!("{count} cases for {}", sm.name());
    }
    println!("{} cases of single instructions", isa::dump::dump(&isa::cases(), &out.join("isa"))?);
    if only.is_empty() { models(out) } else { Ok(()) }
}

fn models(out: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(out.join("models"))?;
    let mut targets: Vec<Target> = Sm::ALL.into_iter().map(Target::Gpu).collect();
    for name in SYSTEMS {
        let options = CompileOptions {
            max_seqs: 64,
            chunk: 8192,
            max_context: Some(16_384),
            ..CompileOptions::new(targets.clone())
        };
        write(
            &Model::builtin(name).expect("a built-in system"),
            &options,
            &out.join("models").join(format!("{name}.nemo")),
        )?;
    }
    targets.push(HostTarget::detect()?.into());
    for name in FIXTURES {
        let model = model(name);
        for activations in [Dtype::F32, Dtype::Bf16] {
            let options = CompileOptions {
                activations: Some(activations),
                max_seqs: 2,
                max_context: Some(model.max_context.min(512)),
                chunk: 256,
                ..CompileOptions::new(targets.clone())
            };
            write(&model, &options, &out.join("models").join(format!("{name}-{activations}.nemo")))?;
        }
        let to = out.join("fixtures").join(name);
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(folder(name))? {
            let entry = entry?;
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn write(model: &Model, options: &CompileOptions, file: &Path) -> Result<(), Box<dyn Error>> {
    let compiled = compile(model, options, &mut |_| {})?;
    nemo_ir::artifact::write_whole(file, &compiled.to_bytes()?)?;
    println!("{}", file.display());
    Ok(())
}
