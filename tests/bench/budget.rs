//! Time of a decode step with a thinking budget that is never reached over that without one. Both are measured in turn,
//! round by round, and so is the step without one a second time: how far that ratio is from 1 is the noise.
//!
//! `cargo bench -p nemo-tests --bench budget`

use std::sync::Arc;
use std::time::Instant;

use nemo_ir::types::Dtype;
use nemo_tests::trained::{TRAINED, engine, engine_of, folder};
use nemort::engine::Engine;
use nemort::session::{Request, Session};
use nemort::text::{Budget, Frame, Grace, Text, ThinkingBudget};
use nemort::weights::WeightsSource;

/// Rounds, and new tokens of each.
const TRAINED_RUNS: (usize, usize) = (41, 160);
const MINI_RUNS: (usize, usize) = (9, 40);

fn main() {
    let text = |name: &str| Arc::new(Text::open(&folder(name), 512).expect("a tokenizer"));
    for name in TRAINED {
        let mut engine = engine(name, Dtype::Bf16);
        for seqs in [1, 8] {
            compare(name, &mut engine, &text(name), seqs, TRAINED_RUNS);
        }
    }
    // A model of 0.7 B parameters with the vocabulary of the tiny one: random weights write random bytes.
    let config = include_str!("../golden/mini/nano2-mini/config.json");
    // The file has an infinity, as published ones have, so it is no JSON.
    let config = config.replace("\"vocab_size\": 32768", "\"vocab_size\": 512");
    let weights = WeightsSource::Random { seed: 0 };
    let mut engine = engine_of(&config, "nano2-mini", Dtype::Bf16, weights);
    compare("nano2-mini", &mut engine, &text("nano2-tiny"), 1, MINI_RUNS);
}

/// Measures and prints.
fn compare(name: &str, engine: &mut Engine, text: &Arc<Text>, seqs: usize, (rounds, new): (usize, usize)) {
    let prompt = text.encode("<think>\nWhat is 347 + 285 + 619?", Frame::Written).expect("tokens");
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        for (which, budget) in [None, Some(text), None].into_iter().enumerate() {
            times[which].push(decode(engine, &prompt, (seqs, new), budget));
        }
    }
    let against = |which: usize| -> f64 {
        median(times[which].iter().zip(&times[0]).map(|(time, without)| time / without).collect())
    };
    println!(
        "{name}, {seqs} at once: {:8.1} us a step; with a budget {:.4} of it, without once more {:.4}",
        median(times[0].clone()) * 1e6,
        against(1),
        against(2),
    );
}

/// Seconds of a decode step, on average over an answer.
fn decode(
    engine: &mut Engine,
    prompt: &[u32],
    (seqs, new): (usize, usize),
    budget: Option<&Arc<Text>>,
) -> f64 {
    let mut session = Session::new(engine);
    for _ in 0..seqs {
        let mut request = Request::new(prompt.to_vec(), new);
        if let Some(text) = budget {
            let unreached = Budget { tokens: new, grace: Grace::default() };
            let hook = ThinkingBudget::new(Arc::clone(text), unreached).expect("a hook");
            request.hooks.push(Box::new(hook));
        }
        session.submit(request).expect("a request");
    }
    // The prompts, and the first token.
    while session.advance().expect("a step").len() < seqs {}
    let started = Instant::now();
    let mut steps = 0;
    while !session.is_idle() {
        session.advance().expect("a step");
        steps += 1;
    }
    started.elapsed().as_secs_f64() / f64::from(steps)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
