//! Budgets of thoughts, on a toy whose vocabulary has tags.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use nemort::session::{Finish, Grown, Hook, Request, Session, TotalTokens, Verdict};
use nemort::text::{Budget, Grace, Text, ThinkingBudget};
use serde_json::{Value, json};

use crate::command::{chat, failure, nemort, stdout};
use crate::engine::engine;
use crate::toy::{self, continued, next};

pub const NEWLINE: u32 = 13;
pub const OPEN: u32 = 14;
const CLOSE: u32 = 15;
/// What the budget forces where a line has begun.
const CLOSING: [u32; 4] = [NEWLINE, CLOSE, NEWLINE, NEWLINE];

/// Letters `a` to `m`, a newline, and the two tags, each a token; the template opens thoughts.
pub fn thinking(directory: &Path) {
    let mut vocab: serde_json::Map<_, _> =
        ('a'..='m').enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
    vocab.insert("\u{10A}".to_owned(), NEWLINE.into());
    let tag = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": false})
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [tag(OPEN, "<think>"), tag(CLOSE, "</think>")],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
    });
    std::fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}{{ '<think>\\n' }}";
    let config = json!({"chat_template": template}).to_string();
    std::fs::write(directory.join("tokenizer_config.json"), config).unwrap();
}

fn text() -> Arc<Text> {
    let dir = tempfile::tempdir().unwrap();
    thinking(dir.path());
    Arc::new(Text::open(dir.path(), 16).unwrap())
}

/// What the toy says with a budget and no grace; how many of the tokens are thoughts.
pub fn budgeted(prompt: &[u32], budget: usize, count: usize) -> (Vec<u32>, usize) {
    let mut tokens = prompt.to_vec();
    let mut inside = prompt.iter().rposition(|token| *token == OPEN).is_some();
    let mut line = false;
    let mut thoughts = 0;
    let new = |tokens: &Vec<u32>| tokens.len() - prompt.len();
    while new(&tokens) < count {
        if inside && thoughts >= budget {
            tokens.extend(if line { &CLOSING[..] } else { &CLOSING[1..] });
            inside = false;
            continue;
        }
        let token = next(&tokens);
        tokens.push(token);
        match token {
            OPEN if !inside => (inside, line) = (true, false),
            CLOSE if inside => inside = false,
            _ if inside => {
                thoughts += 1;
                line = token != NEWLINE;
            }
            _ => {}
        }
    }
    tokens.truncate(prompt.len() + count);
    (tokens.split_off(prompt.len()), thoughts)
}

#[test]
fn each_sequence_of_a_batch_has_its_own_budget() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    let text = text();
    // More sequences than slots: with budgets of all sizes, and without.
    let mut wanted = Vec::new();
    let mut usages = Vec::new();
    let mut ids = Vec::new();
    for n in 0..60_u32 {
        let mut prompt: Vec<u32> = (0..n % 13 + 1).map(|k| (k * 3 + n) % 13).collect();
        if n % 2 == 0 {
            prompt.extend([OPEN, NEWLINE]);
        }
        let budget = n as usize % 7;
        let mut request = Request::new(prompt.clone(), 40);
        if n % 5 == 0 {
            wanted.push((continued(&prompt, 40), None));
            usages.push(None);
        } else {
            let hook =
                ThinkingBudget::new(Arc::clone(&text), Budget { tokens: budget, grace: Grace::Tokens(0) });
            let hook = hook.unwrap();
            usages.push(Some(hook.usage()));
            request.hooks.push(Box::new(hook));
            let (tokens, thoughts) = budgeted(&prompt, budget, 40);
            assert!(thoughts <= budget);
            wanted.push((tokens, Some(thoughts)));
        }
        ids.push(session.submit(request).unwrap());
    }
    let mut tokens = vec![Vec::new(); ids.len()];
    while !session.is_idle() {
        for event in session.advance().unwrap() {
            let at = ids.iter().position(|id| *id == event.sequence).unwrap();
            tokens[at].extend(event.token);
        }
    }
    let mut hits = 0;
    for (n, (wanted, usage)) in wanted.iter().zip(usages).enumerate() {
        assert_eq!(tokens[n], wanted.0, "sequence {n}");
        let usage = usage.map(|usage| usage.get());
        assert_eq!(usage.map(|usage| usage.thinking_tokens), wanted.1, "sequence {n}");
        hits += usize::from(usage.is_some_and(|usage| usage.budget_hit));
    }
    assert!(hits > 20, "{hits}");
}

/// Answers about the first token, and never again.
struct First(Verdict);

impl Hook for First {
    fn begin(&mut self, prompt: &[u32]) -> Verdict {
        assert_eq!(prompt, [1, 2]);
        self.0.clone()
    }

    fn after(&mut self, _token: u32, _grown: Grown<'_>) -> Verdict {
        Verdict::Continue
    }
}

#[test]
fn hooks_govern_the_first_token() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    let mut run = |hooks: Vec<Box<dyn Hook>>| {
        let request = Request { hooks, ..Request::new(vec![1, 2], 4) };
        let ran = session.generate(request, |_| ControlFlow::Continue(())).unwrap();
        assert!(session.is_idle());
        ran
    };
    let forced = continued(&[1, 2, 7, 9], 2);
    let force = || Box::new(First(Verdict::Force(vec![7, 9])));
    assert_eq!(run(vec![force()]), ([&[7, 9], &forced[..]].concat(), Finish::Length));
    let stop = || Box::new(First(Verdict::Stop("enough".to_owned())));
    for hooks in [vec![stop()], vec![force(), stop()]] {
        let hooks = hooks.into_iter().map(|hook| hook as Box<dyn Hook>).collect();
        assert_eq!(run(hooks), (vec![], Finish::Hook("enough".to_owned())));
    }
    for (most, new) in [(0, 0), (2, 0), (3, 1), (5, 3)] {
        let (tokens, finish) = run(vec![Box::new(TotalTokens::new(most))]);
        assert_eq!((tokens, finish.name()), (continued(&[1, 2], new), "total-tokens"));
    }
    assert_eq!(run(vec![Box::new(TotalTokens::new(7))]), (continued(&[1, 2], 4), Finish::Length));
}

#[test]
fn generate_keeps_to_a_budget_and_says_so() {
    let (dir, file) = toy::directory();
    thinking(dir.path());
    let (file, weights) = (file.to_str().unwrap(), dir.path().to_str().unwrap());
    let run = |more: &[&str]| -> Value {
        let base =
            ["generate", file, "--weights", weights, "--json", "--ignore-eos", "--max-new-tokens", "20"];
        let output = nemort(&[&base[..], &["--prompt", "bcd"], more].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_str(stdout(&output)).unwrap()
    };
    let prompt = [1, 2, 3, OPEN, NEWLINE];
    for budget in 0..6 {
        let (tokens, thoughts) = budgeted(&prompt, budget, 20);
        let found = run(&["--think-budget", &budget.to_string(), "--think-grace", "0"]);
        assert_eq!(found["tokens"], json!(tokens), "{budget}");
        assert_eq!(found["thinking_tokens"], json!(thoughts), "{budget}");
        let sum: u64 = ["thinking_tokens", "answer_tokens", "tag_tokens"]
            .map(|name| found[name].as_u64().unwrap())
            .iter()
            .sum();
        assert_eq!(sum, 20);
    }
    let none = run(&["--think-budget", "0"]);
    assert_eq!((&none["budget_hit"], &none["thinking"]), (&json!(true), &json!("")));
    let free = run(&[]);
    assert_eq!((&free["tokens"], &free["budget_hit"]), (&json!(continued(&prompt, 20)), &json!(false)));
    let unreached = run(&["--think-budget", "200"]);
    for field in ["tokens", "thinking_tokens", "answer_tokens", "tag_tokens", "budget_hit", "stopped_by"] {
        assert_eq!(unreached[field], free[field], "{field}");
    }
    let total = run(&["--total-tokens", "9"]);
    assert_eq!(
        (&total["stopped_by"], &total["tokens"]),
        (&json!("total-tokens"), &json!(continued(&prompt, 4)))
    );
}

#[test]
fn a_chat_keeps_to_a_budget_as_long_as_there_is_room() {
    let (dir, file) = toy::directory();
    thinking(dir.path());
    let (file, weights) = (file.to_str().unwrap(), dir.path().to_str().unwrap());
    let said = |lines: &str, more: &[&str], code| {
        let output = chat(file, weights, lines, more);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        format!("$ {}\n{}\n", more.join(" "), String::from_utf8(output.stderr).unwrap())
    };
    let mut report = String::new();
    // The last of these answers has less room than its budget.
    let long = ["--think-budget", "58", "--max-new-tokens", "60", "--max-context", "160"];
    report += &said("bcd\nbcd\nbcd\n", &long, 0);
    // A grace may wait for a budget.
    report += &said("/budget 6\nbcd", &["--think-grace", "0", "--max-new-tokens", "20"], 0);
    report += &said("", &["--think-budget", "4", "--max-new-tokens", "4"], 0);
    report += &said("/budget 20", &["--max-new-tokens", "20"], 0);
    report += &said("", &["--think-budget", "220"], 1);
    report += &said("", &["--think-budget", "18446744073709551615"], 1);
    report += &said("", &["--think-budget", "40", "--think-grace", "10", "--max-context", "65"], 1);
    report += &said("/budget 60", &["--max-context", "64"], 1);
    insta::assert_snapshot!(report);
}

#[test]
fn budgets_that_mean_nothing_are_refused() {
    let (dir, file) = toy::directory();
    let (file, weights) = (file.to_str().unwrap(), dir.path().to_str().unwrap());
    let mut report = String::new();
    let mut refused = |what: &str, more: &[&str], code| {
        let said = failure(&[&["generate", file, "--weights", weights], more].concat(), code);
        let said = said.replace(weights, "CHECKPOINT");
        let said = said.split("\n\n").next().unwrap_or_default().trim_end().to_owned();
        report.push_str(&format!("{what}\n$ {}\n{said}\n\n", more.join(" ")));
    };
    refused("a tokenizer and a template without tags", &["--prompt", "a", "--think-budget", "4"], 1);
    let template = json!({"chat_template": "{{ messages[0].content }}<think>"}).to_string();
    std::fs::write(dir.path().join("tokenizer_config.json"), template).unwrap();
    refused("a tokenizer without tags", &["--prompt", "a", "--think-budget", "4"], 1);
    thinking(dir.path());
    let template = json!({"chat_template": "{{ messages[0].content }}"}).to_string();
    std::fs::write(dir.path().join("tokenizer_config.json"), template).unwrap();
    for raw in [&[][..], &["--raw"]] {
        let own = ["--prompt", "a<think>b</think>", "--think-budget", "4"];
        refused("tags in the user's own text", &[&own[..], raw].concat(), 1);
    }
    thinking(dir.path());
    for budget in ["252", "18446744073709551615"] {
        refused("more than the context", &["--prompt", "bcd", "--think-budget", budget], 1);
    }
    let small = ["--prompt", "bcd", "--max-context", "20", "--think-budget", "16"];
    refused("more than the context asked for", &small, 1);
    for budget in ["-1", "many", "1.5", "18446744073709551616"] {
        refused("no count", &["--prompt", "a", "--think-budget", budget], 2);
    }
    for grace in ["-1", "101%", "x%", "10 %"] {
        refused("no grace", &["--prompt", "a", "--think-budget", "4", "--think-grace", grace], 2);
    }
    refused("a grace of nothing", &["--prompt", "a", "--think-grace", "4"], 2);
    refused("no total", &["--prompt", "a", "--total-tokens", "-1"], 2);
    std::fs::write(dir.path().join("tokenizer_config.json"), "{}").unwrap();
    refused("no template", &["--prompt", "a", "--raw", "--think-budget", "4"], 1);
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    refused("no tokenizer", &["--tokens", "1", "--think-budget", "4"], 1);
    insta::assert_snapshot!(report);
}
