//! Time of a decode step with a thinking budget that is never reached over that without one. Both are measured in turn,
//! round by round, and so is the step without one a second time: how far that ratio is from 1 is the noise.
//!
//! `cargo bench -p nemo-tests --bench budget`

use std::sync::Arc;
use std::time::Instant;

use nemo_ir::types::Dtype;
use nemo_tests::trained::{TRAINED, engine, folder};
use nemort::engine::Engine;
use nemort::session::{Request, Session};
use nemort::text::{Budget, ChatTemplate, Conversation, Frame, Grace, Text, ThinkingBudget};

const ROUNDS: usize = 41;
const NEW: usize = 160;

fn main() {
    for name in TRAINED {
        let text = Arc::new(Text::open(&folder(name), 512).expect("a tokenizer"));
        let template = ChatTemplate::open(&folder(name)).expect("a template");
        let prompt = template.render(&Conversation::prompt("What is 347 + 285 + 619?")).expect("a prompt");
        let prompt = text.encode(&prompt, Frame::Written).expect("tokens");
        let mut engine = engine(name, Dtype::Bf16);
        for seqs in [1, 8] {
            let mut times: [Vec<f64>; 3] = Default::default();
            for _ in 0..ROUNDS {
                for (which, budget) in [None, Some(&text), None].into_iter().enumerate() {
                    times[which].push(decode(&mut engine, &prompt, seqs, budget));
                }
            }
            let against = |which: usize| -> Vec<f64> {
                times[which].iter().zip(&times[0]).map(|(time, without)| time / without).collect()
            };
            println!(
                "{name}, {seqs} sequences: {:6.1} us a step; with a budget {:.3} of it, without once more {:.3}",
                median(times[0].clone()) * 1e6,
                median(against(1)),
                median(against(2)),
            );
        }
    }
}

/// Seconds of a decode step, on average over an answer.
fn decode(engine: &mut Engine, prompt: &[u32], seqs: usize, budget: Option<&Arc<Text>>) -> f64 {
    let mut session = Session::new(engine);
    for _ in 0..seqs {
        let mut request = Request::new(prompt.to_vec(), NEW);
        if let Some(text) = budget {
            let unreached = Budget { tokens: NEW, grace: Grace::default() };
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
