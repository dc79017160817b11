use nemo_ir::plan::Phase;
use nemoc::{cost::Situation, device::Device, lower::{lower, LowerOptions}, saturate::{fuse, Options}};
fn main() {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap();
    let dev = args.next().unwrap();
    let tokens: u64 = args.next().unwrap().parse().unwrap();
    let phase = if args.next().as_deref() == Some("prefill") { Phase::Prefill } else { Phase::Decode };
    let show = args.next().is_some();
    let model = nemo_models::Model::builtin(&name).unwrap();
    let program = lower(&model, phase, LowerOptions::of(&model)).unwrap();
    let device = Device::builtin(&dev).unwrap();
    let at = Situation { device: &device, phase, tokens, seqs: if phase == Phase::Decode { tokens } else { 1 } };
    let mut count = 0; let mut off = 0; let mut greedy = 0;
    let t = std::time::Instant::now();
    for (i, block) in program.blocks.iter().enumerate() {
        let calls = program.calls.iter().filter(|c| c.block == i).count();
        let f = fuse(block, &at, Options::default()).unwrap();
        let r = &f.report;
        if let Err(e) = nemo_ir::verify::verify_block(&f.block) { println!("{e:?}"); }
        count += calls * r.chosen.kernels; off += calls * r.off.kernels; greedy += calls * r.greedy.kernels;
        println!("{} x{calls}: off {} {:.1}us greedy {} {:.1}us chosen {} {:.1}us {:?}", r.name, r.off.kernels, r.off.seconds*1e6, r.greedy.kernels, r.greedy.seconds*1e6, r.chosen.kernels, r.chosen.seconds*1e6, r.saturation);
        for k in &r.kernels { println!("   {} {:?} {:.2}us {} B  {:?} {:?}", k.op, k.laws, k.seconds*1e6, k.bytes, k.class, k.replaces.len()); }
        if show { println!("{}", f.block); }
    }
    println!("kernels {count} off {off} greedy {greedy} in {:?}", t.elapsed());
}
