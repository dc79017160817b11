//! A model small enough to predict: the next token is the sum of all tokens so far, each once through
//! the slot state and once, times its position plus one, through the KV pages, modulo the vocabulary.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nemo_ir::artifact::{self, Artifact, Contents, Needs, TargetContents};
use nemo_ir::plan::{
    Arg, Block, Call, Kernel, Launch, Limits, Phase, Placement, Plan, Program, State, StateUnit, Weight,
};
use nemo_ir::rope::RopeTable;
use nemo_ir::step::StepInput;
use nemo_ir::types::Dtype;
use serde_json::json;

pub const VOCAB: u32 = 16;
pub const CHUNK: u64 = 8;
pub const CONTEXT: u64 = 256;

pub const KERNELS: &str = r"
    typedef unsigned int u32; typedef unsigned long u64; typedef unsigned short u16;
    struct dims { u64 tokens, seqs, rows, pages; };
    #define KERNEL(name) void name(char **args, const struct dims *d, u32 thread, u32 threads)
    static float wide(u16 bits) { union { u32 u; float f; } x = { (u32)bits << 16 }; return x.f; }

    KERNEL(toy_embed) {
        const u16 *table = (const u16 *)args[0]; const float *scale = (const float *)args[1];
        const int *tokens = (const int *)args[2]; float *x = (float *)args[3];
        for (u64 t = thread; t < d->tokens; t += threads) 
            x[t] = tokens[t] < 0 ? 0.0f : wide(table[tokens[t] * 2]) * scale[0];
    }
    KERNEL(toy_scan) {
        const float *x = (const float *)args[0]; float *state = (float *)args[1];
        const int *start = (const int *)args[2], *in = (const int *)args[3], *out = (const int *)args[4];
        const float *rope = (const float *)args[5]; float *y = (float *)args[6];
        for (u64 r = thread; r < d->seqs; r += threads) {
            float sum = in[r] < 0 ? 0.0f : state[in[r] * 3 + 1];
            for (int t = start[r]; t < start[r + 1]; ++t) y[t] = sum += x[t] * rope[0];
            if (out[r] >= 0) state[out[r] * 3 + 1] = sum;
        }
    }
    KERNEL(toy_cache) {
        const int *tokens = (const int *)args[0], *start = (const int *)args[1], *context = (const int *)args[2];
        const int *pages = (const int *)args[3]; float *kv = (float *)args[4]; float *y = (float *)args[5];
        for (u64 r = thread; r < d->seqs; r += threads) {
            const int *table = pages + r * d->pages;
            for (int t = start[r]; t < start[r + 1]; ++t) {
                int at = context[r] + t - start[r];
                if (table[at / 64] < 0) continue;
                kv[table[at / 64] * 64 + at % 64] = (float)(tokens[t] * (at + 1));
                for (int past = 0; past <= at; ++past) y[t] += kv[table[past / 64] * 64 + past % 64];
            }
        }
    }
    KERNEL(toy_head) {
        const float *y = (const float *)args[0]; const int *rows = (const int *)args[1];
        float *logits = (float *)args[2];
        for (u64 l = thread; l < d->rows; l += threads)
            for (int v = 0; v < 16; ++v) {
                int distance = v - (int)((long)y[rows[l]] % 16);
                logits[l * 16 + v] = (float)(-distance * distance);
            }
    }
    KERNEL(toy_sample) {
        const float *logits = (const float *)args[0]; const int *rows = (const int *)args[1];
        const int *start = (const int *)args[2], *forced = (const int *)args[3]; int *next = (int *)args[4];
        for (u64 r = thread; r < d->seqs; r += threads) {
            next[r] = -1;
            for (u64 l = 0; l < d->rows; ++l) {
                if (rows[l] != start[r + 1] - 1) continue;
                int best = 0;
                for (int v = 1; v < 16; ++v) if (logits[l * 16 + v] > logits[l * 16 + best]) best = v;
                next[r] = forced[r] >= 0 ? forced[r] : best;
            }
        }
    }
    #define MARK(name, constant) KERNEL(name) { \
        int *next = (int *)args[0]; \
        for (u64 r = thread; r < d->seqs; r += threads) next[r] = constant; \
    }
    MARK(mark_1, 1) MARK(mark_2, 2) MARK(mark_3, 3)
    KERNEL(mark_logits) {
        float *logits = (float *)args[0];
        for (u64 i = thread; i < d->rows * 16; i += threads) logits[i] = 0.5f;
    }";

/// The toy's kernels as an object.
pub fn object() -> &'static [u8] {
    static OBJECT: OnceLock<Vec<u8>> = OnceLock::new();
    OBJECT.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("toy.c"), dir.path().join("toy.o"));
        std::fs::write(&input, KERNELS).unwrap();
        let status = Command::new("cc")
            .args(["-c", "-O1", "-fPIC", "-fvisibility=hidden", "-ffreestanding", "-fno-stack-protector"])
            .args(["-fcf-protection=none", "-o"])
            .args([output.as_os_str(), input.as_os_str()])
            .status()
            .unwrap();
        assert!(status.success());
        std::fs::read(&output).unwrap()
    })
}

fn program(phase: Phase, max_tokens: u64) -> Program {
    let launch =
        |kernel: usize, op: &str, args: &[Arg]| Launch { kernel, op: op.to_owned(), args: args.to_vec() };
    let step = Arg::Step;
    let (x, y) = (Arg::Arena(0), Arg::Arena(1024));
    let scan = [
        x,
        Arg::State(0),
        step(StepInput::SeqStart),
        step(StepInput::SlotIn),
        step(StepInput::SlotOut),
        Arg::Table(0),
        y,
    ];
    let cache = [
        step(StepInput::Tokens),
        step(StepInput::SeqStart),
        step(StepInput::Context),
        step(StepInput::Pages),
        Arg::State(1),
        y,
    ];
    let sample =
        [Arg::Logits, step(StepInput::Rows), step(StepInput::SeqStart), step(StepInput::Forced), Arg::Next];
    let block = |name: &str, launches: Vec<Launch>| Block { name: name.to_owned(), launches };
    Program {
        phase,
        min_tokens: 1,
        max_tokens,
        max_seqs: 3,
        arena_bytes: 2048,
        blocks: vec![
            block(
                "embed",
                vec![launch(0, "embed", &[Arg::Weight(1), Arg::Weight(0), step(StepInput::Tokens), x])],
            ),
            block("layer", vec![launch(1, "scan", &scan), launch(2, "cache", &cache)]),
            block(
                "head",
                vec![
                    launch(3, "head", &[y, step(StepInput::Rows), Arg::Logits]),
                    launch(4, "sample", &sample),
                ],
            ),
        ],
        calls: vec![
            Call { block: 0, layer: None, weights: vec![1, 0], states: vec![] },
            Call { block: 1, layer: Some(0), weights: vec![], states: vec![0, 1] },
            Call { block: 2, layer: None, weights: vec![], states: vec![] },
        ],
    }
}

/// The toy's plan.
pub fn plan(target: &str) -> Plan {
    let kernel = |(name, args): (&str, usize)| Kernel {
        symbol: format!("toy_{name}"),
        what: name.to_owned(),
        args,
        geometry: None,
    };
    Plan {
        target: target.to_owned(),
        limits: Limits { vocab: u64::from(VOCAB), max_context: CONTEXT, max_seqs: 3, chunk: CHUNK },
        kernels: [("embed", 4), ("scan", 7), ("cache", 6), ("head", 3), ("sample", 5)].map(kernel).to_vec(),
        weights: vec![
            Weight {
                names: vec!["backbone.embed.weight".to_owned(), "embed.weight".to_owned()],
                shape: vec![16, 2],
                placement: Placement::InPlace(Dtype::Bf16),
            },
            Weight { names: vec!["scale".to_owned()], shape: vec![1], placement: Placement::WidenedToF32 },
        ],
        states: vec![
            State {
                name: "layers.0.ssm".to_owned(),
                per: StateUnit::Slot,
                dtype: Dtype::F32,
                shape: vec![3],
            },
            State {
                name: "layers.0.kv".to_owned(),
                per: StateUnit::Page,
                dtype: Dtype::F32,
                shape: vec![64],
            },
        ],
        tables: vec![RopeTable { theta: 1e4, head_dim: 2, positions: CONTEXT, scaling: None }],
        workspace: None,
        programs: vec![program(Phase::Decode, 3), program(Phase::Prefill, CHUNK)],
    }
}

fn target(name: &str, features: &[&str]) -> TargetContents {
    TargetContents {
        name: name.to_owned(),
        needs: Needs::Host { cpu_features: features.iter().map(|feature| (*feature).to_owned()).collect() },
        cubin: None,
        plan: plan(name),
        object: object().to_vec(),
        fused: vec![("decode-1-3".to_owned(), "toy\n".to_owned())],
        explain: None,
    }
}

/// An artifact's contents with the targets given, each with its features.
pub fn contents(targets: &[(&str, &[&str])]) -> Contents {
    Contents {
        model: "toy".to_owned(),
        compiler: "cc".to_owned(),
        weights: Dtype::Bf16,
        activations: Dtype::F32,
        model_toml: String::new(),
        targets: targets.iter().map(|(name, features)| target(name, features)).collect(),
    }
}

/// The toy as an artifact that every x86-64 runs.
pub fn artifact() -> Artifact {
    let bytes = artifact::to_bytes(&contents(&[("x86-64", &["sse2"])])).unwrap();
    Artifact::from_bytes(Path::new("toy.nemo"), bytes).unwrap()
}

/// A safetensors file: name, dtype, shape, bytes.
pub fn safetensors(tensors: &[(&str, &str, &[u64], Vec<u8>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert((*name).to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend(bytes);
    }
    let json = serde_json::to_vec(&header).unwrap();
    [(json.len() as u64).to_le_bytes().to_vec(), json, data].concat()
}

/// The toy's weights, tokenizer (letters `a` to `p`), template and settings in a directory.
pub fn checkpoint(directory: &Path) {
    let table: Vec<u8> = (0..VOCAB)
        .flat_map(|v| [v as f32, 0.0])
        .flat_map(|x| half::bf16::from_f32(x).to_le_bytes())
        .collect();
    let scale = half::f16::from_f32(1.0).to_le_bytes().to_vec();
    let file = safetensors(&[
        ("odd", "U8", &[1], vec![0]),
        ("embed.weight", "BF16", &[16, 2], table),
        ("scale", "F16", &[1], scale),
    ]);
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).unwrap();
    write("model.safetensors", &file);
    let vocab: serde_json::Map<_, _> =
        ('a'..='p').enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
    });
    write("tokenizer.json", tokenizer.to_string().as_bytes());
    let template = "{% for m in messages %}p{{ m.content }}{% endfor %}";
    write("tokenizer_config.json", json!({"chat_template": template}).to_string().as_bytes());
    write("generation_config.json", br#"{"eos_token_id": [14]}"#);
}

/// A directory with the toy's artifact (`toy.nemo`) and checkpoint.
pub fn directory() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path());
    let file = dir.path().join("toy.nemo");
    artifact::write(&file, &contents(&[("x86-64", &["sse2"])])).unwrap();
    (dir, file)
}

/// What the toy says after these tokens.
pub fn next(tokens: &[u32]) -> u32 {
    tokens.iter().enumerate().map(|(at, token)| token * (at as u32 + 2)).sum::<u32>() % VOCAB
}

/// A prompt and what the toy makes of it.
pub fn continued(prompt: &[u32], count: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..count {
        tokens.push(next(&tokens));
    }
    tokens.split_off(prompt.len())
}
