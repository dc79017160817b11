//! A thousand drawn generations, each with a budget and a grace of its own.

use std::sync::Arc;

use nemo_ir::types::Dtype;
use nemo_tests::random::Random;
use nemo_tests::trained::{TRAINED, engine, folder, home};
use nemort::session::{Request, Sampling, Session};
use nemort::text::{
    Budget, ChatTemplate, Conversation, Frame, GenerationSettings, Grace, Text, TextStream, ThinkingBudget,
    UsageReader,
};

use super::lines;

const GENERATIONS: usize = 500;
const NEW: usize = 200;

/// What was asked of one generation, and what it gave.
struct Drawn {
    budget: Budget,
    opened: bool,
    usage: UsageReader,
    tokens: Vec<u32>,
}

/// Generations at temperature 1, eight at a time: every one another problem, seed, budget and grace.
fn generations(name: &str, text: &Arc<Text>) -> Vec<Drawn> {
    let mut random = Random::new(7);
    let template = ChatTemplate::open(&folder(name)).expect("a template");
    let end = GenerationSettings::open(&folder(name)).expect("settings").end;
    let mut engine = engine(name, Dtype::Bf16);
    let mut session = Session::new(&mut engine);
    let problems = lines(&std::fs::read(home().join("problems.jsonl")).expect("the problems"));
    let mut ids = Vec::new();
    let mut drawn = Vec::new();
    for problem in problems.iter().cycle().take(GENERATIONS) {
        let mut conversation = Conversation::default();
        if name == "nas-tiny" {
            let system = serde_json::json!({"role": "system", "content": "detailed thinking on"});
            conversation.messages.push(system);
        }
        conversation.messages.push(problem["messages"][0].clone());
        let prompt = template.render(&conversation).expect("a prompt");
        let prompt = text.encode(&prompt, Frame::Written).expect("tokens");
        let grace = match random.below(3) {
            0 => Grace::Tokens(random.below(12)),
            1 => Grace::Percent(random.below(101) as u8),
            _ => Grace::default(),
        };
        let budget = Budget { tokens: random.below(90), grace };
        let hook = ThinkingBudget::new(Arc::clone(text), budget).expect("a hook");
        let opened = text.opens_thinking(&prompt).expect("text");
        let usage = hook.usage();
        let mut request = Request::new(prompt, NEW);
        request.sampling = Sampling { temperature: 1.0, seed: random.bits(), ..Sampling::default() };
        request.end.clone_from(&end);
        request.hooks.push(Box::new(hook));
        ids.push(session.submit(request).expect("a request"));
        drawn.push(Drawn { budget, opened, usage, tokens: Vec::new() });
    }
    while !session.is_idle() {
        for event in session.advance().expect("a step") {
            event.check().expect("a token");
            let at = ids.iter().position(|id| *id == event.sequence).expect("a sequence");
            drawn[at].tokens.extend(event.token);
        }
    }
    drawn
}

/// Tokens of the first thoughts by the whole text alone: those whose text ends between the tags, but for white space
/// before the closing one, which a budget may have written.
fn thoughts_by_text(text: &Text, drawn: &Drawn) -> usize {
    let whole = text.decode(&drawn.tokens).expect("text");
    let from = if drawn.opened { Some(0) } else { whole.find("<think>").map(|at| at + "<think>".len()) };
    let Some(from) = from else { return 0 };
    let to = whole[from..].find("</think>").map_or(whole.len(), |at| from + at);
    let to = from + whole[from..to].trim_end().len();
    let length = |count: usize| text.decode(&drawn.tokens[..count]).expect("text").len();
    (1..=drawn.tokens.len()).filter(|count| length(*count) > from && length(*count) <= to).count()
}

#[test]
fn budgets_are_kept_whatever_is_drawn() {
    for name in TRAINED {
        let text = Arc::new(Text::open(&folder(name), 512).expect("a tokenizer"));
        let drawn = generations(name, &text);
        let (mut hit, mut unreached) = (0, 0);
        for one in &drawn {
            let usage = one.usage.get();
            let limit = one.budget.limit();
            let whole = text.decode(&one.tokens).expect("text");
            assert!(usage.thinking_tokens <= limit, "{name}: {usage:?} of {:?} in {whole:?}", one.budget);
            assert!(thoughts_by_text(&text, one) <= limit, "{name}: {:?} in {whole:?}", one.budget);
            let counted = usage.thinking_tokens + usage.answer_tokens + usage.tag_tokens;
            assert_eq!(counted, one.tokens.len(), "{name}: {whole:?}");
            // A budget that is used up closes, and one that is not does nothing.
            assert!(!usage.budget_hit || usage.thinking_tokens >= one.budget.tokens, "{name}: {usage:?}");
            hit += usize::from(usage.budget_hit);
            unreached += usize::from(!usage.budget_hit && whole.contains("</think>"));
        }
        println!("{name}: {hit} closed by the budget, {unreached} by the model, of {}", drawn.len());
        assert!(hit >= 100 && unreached >= 100, "{name}: {hit} and {unreached}");
    }
}

#[test]
fn no_character_is_split_in_any_script() {
    for name in TRAINED {
        let text = Arc::new(Text::open(&folder(name), 512).expect("a tokenizer"));
        let mut pieces_of_scripts = 0;
        for one in generations(name, &text) {
            let whole = text.decode(&one.tokens).expect("text");
            let mut stream = TextStream::new(Arc::clone(&text));
            let mut streamed = String::new();
            for token in &one.tokens {
                let piece = stream.push(*token).expect("text");
                pieces_of_scripts += usize::from(!piece.is_ascii());
                // What has been shown is never taken back.
                streamed.push_str(&piece);
                assert!(whole.starts_with(&streamed), "{name}: {streamed:?} in {whole:?}");
            }
            streamed.push_str(&stream.finish().expect("text"));
            assert_eq!(streamed, whole, "{name}");
        }
        assert!(pieces_of_scripts >= 500, "{name}: {pieces_of_scripts}");
    }
}
