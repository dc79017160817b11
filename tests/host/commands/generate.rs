//! `nemort generate`.

use std::fmt::Write;
use std::time::Instant;

use nemo_tests::commands::Room;
use nemo_tests::golden::{FIXTURES, folder, greedy, references};
use serde_json::{Value, json};

use super::TARGETS;

fn room() -> Room {
    let room = Room::new();
    room.fixture("hybrid");
    room.artifact("hybrid", TARGETS);
    room
}

const GENERATE: &str = "nemort generate hybrid.nemo --weights hybrid";

fn recitals() -> Vec<Value> {
    let text = std::fs::read_to_string(folder("hybrid").join("recite.json")).expect("recitals");
    serde_json::from_str(&text).expect("a list")
}

/// The arguments that ask for a recital.
fn asked(room: &Room, recital: &Value) -> String {
    let prompt = recital["prompt"].as_str().expect("a prompt");
    if recital["messages"].is_null() {
        return format!("--raw --prompt '{prompt}'");
    }
    // Thoughts that were cut stand in the prompt, which a template cannot write.
    if recital["name"].as_str().expect("a name").contains("cut") {
        let ids: Vec<u32> = serde_json::from_value(recital["prompt_ids"].clone()).expect("token ids");
        let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
        return format!("--tokens {}", ids.join(","));
    }
    match recital["messages"].as_array().expect("messages").as_slice() {
        [only] => format!("--prompt '{}'", only["content"].as_str().expect("a text")),
        _ => {
            room.write("chat.json", recital["messages"].to_string());
            "--chat chat.json".to_owned()
        }
    }
}

#[test]
fn recitals_are_recited() {
    let room = room();
    for recital in recitals() {
        let ask = asked(&room, &recital);
        let name = &recital["name"];
        for target in ["", "--target x86-64-v3"] {
            let line = format!("{GENERATE} {ask} {target} --max-new-tokens 250");
            let found = room.json(&format!("{line} --json"));
            assert_eq!(found["tokens"], recital["new_ids"], "{name} {target}");
            assert_eq!(found["text"], recital["text"], "{name} {target}");
            assert_eq!(
                found["prompt_tokens"],
                recital["prompt_ids"].as_array().expect("token ids").len(),
                "{name}"
            );
            assert_eq!(found["stopped_by"], "eos", "{name}");
            let streamed = room.succeeds(&line);
            assert_eq!(streamed, format!("{}\n", recital["text"].as_str().expect("a text")), "{name}");
        }
    }
}

/// As the README has it: no option but the target, so in the checkpoint's own dtype.
#[test]
fn recitals_are_recited_in_bf16() {
    let room = Room::new();
    room.fixture("hybrid");
    room.succeeds(&format!("nemoc compile hybrid --target {TARGETS} --quiet"));
    for recital in recitals().iter().filter(|recital| recital["bf16_same"] == true) {
        let found = room.json(&format!("{GENERATE} {} --json", asked(&room, recital)));
        assert_eq!(found["text"], recital["text"], "{}", recital["name"]);
        assert_eq!(found["stopped_by"], "eos", "{}", recital["name"]);
    }
}

#[test]
fn every_family_continues_greedily_like_the_references() {
    for name in FIXTURES {
        let room = Room::new();
        room.artifact(name, TARGETS);
        let [a, _] = references(name);
        let prompt = a.prompt.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let wanted = greedy(name);
        let found = room.json(&format!(
            "nemort generate {name}.nemo --weights '{}' --tokens {prompt} --max-new-tokens {} --temperature 0 --ignore-eos --json",
            folder(name).display(),
            wanted.len()
        ));
        assert_eq!(found["tokens"], json!(wanted), "{name}");
    }
}

#[test]
fn json_has_what_scripts_read() {
    let room = room();
    let found = room.json(&format!("{GENERATE} --prompt 'Tell me about the river.' --json"));
    let (text, thinking, answer) = (&found["text"], &found["thinking"], &found["answer"]);
    let [text, thinking, answer] = [text, thinking, answer].map(|value| value.as_str().expect("a text"));
    assert!(thinking.starts_with("The user would like") && thinking.ends_with("will do."), "{thinking}");
    assert!(answer.starts_with("The river begins") && answer.ends_with("the snow.\n"), "{answer}");
    assert_eq!(text, format!("{thinking}\n</think>\n\n{answer}"));
    let count = |name: &str| found[name].as_u64().unwrap_or_else(|| panic!("{name}: {found}"));
    let tokens = found["tokens"].as_array().expect("token ids").len() as u64;
    assert_eq!(count("thinking_tokens") + count("answer_tokens") + count("tag_tokens"), tokens);
    assert!(count("thinking_tokens") > 0 && count("tag_tokens") > 0 && count("prompt_tokens") == 23);
    assert_eq!(found["budget_hit"], false);
    for phase in ["load", "prefill", "decode"] {
        assert!(found["seconds"][phase].as_f64().is_some_and(|seconds| seconds >= 0.0), "{phase}: {found}");
    }
    // An answer without thoughts.
    let plain = room.json(&format!("{GENERATE} --raw --prompt 'The river begins' --json"));
    assert_eq!((&plain["thinking"], &plain["thinking_tokens"]), (&json!(""), &json!(0)));
    assert_eq!(plain["answer"], plain["text"]);
}

#[test]
fn thoughts_keep_to_their_budget_whatever_is_drawn() {
    let room = room();
    let mut hits = 0;
    for seed in 0..12 {
        let (budget, grace) = (seed * 3 % 10, seed % 4);
        let found = room.json(&format!(
            "{GENERATE} --prompt 'Tell me about the river.' --json --max-new-tokens 60 --temperature 1 --seed {seed} --think-budget {budget} --think-grace {grace}"
        ));
        let thoughts = found["thinking_tokens"].as_u64().expect("a count");
        assert!(thoughts <= budget + grace, "{found}");
        let hit = found["budget_hit"].as_bool().expect("true or false");
        assert!(!hit || found["text"].as_str().is_some_and(|text| text.contains("</think>")), "{found}");
        assert!(budget > 0 || (hit && thoughts == 0), "{found}");
        hits += u64::from(hit);
    }
    assert!(hits > 6, "{hits}");
}

#[test]
fn limits_stop_where_they_say() {
    let room = room();
    let ask = format!("{GENERATE} --raw --prompt 'The river begins' --json");
    let whole = room.json(&ask);
    let tokens = whole["tokens"].as_array().expect("token ids");

    let five = room.json(&format!("{ask} --max-new-tokens 5"));
    assert_eq!(
        (&five["stopped_by"], five["tokens"].as_array()),
        (&json!("length"), Some(&tokens[..5].to_vec()))
    );

    let stopped = room.json(&format!("{ask} --stop nowhere --stop ' the stones' --stop meadows"));
    assert_eq!(stopped["stopped_by"], "stop");
    assert_eq!(stopped["text"], " as a thread of snowmelt high on the mountain. It slips between");
    let streamed =
        room.succeeds(&format!("{GENERATE} --raw --prompt 'The river begins' --stop ' the stones'"));
    assert_eq!(streamed, " as a thread of snowmelt high on the mountain. It slips between\n");
    assert_eq!(room.json(&format!("{ask} --stop 'not there'"))["text"], whole["text"]);

    let on = room.json(&format!("{ask} --ignore-eos --max-new-tokens 200"));
    let longer = on["tokens"].as_array().expect("token ids");
    assert_eq!((longer.len(), &on["stopped_by"]), (200, &json!("length")));
    assert_eq!(longer[..tokens.len()], tokens[..]);

    let begun = Instant::now();
    let late = room.json(&format!("{ask} --ignore-eos --deadline 1ms"));
    assert_eq!(late["stopped_by"], "deadline");
    let count = late["tokens"].as_array().expect("token ids").len();
    assert!(count < 500, "{count} tokens in {:?}", begun.elapsed());
    let none = room.json(&format!("{ask} --deadline 0s"));
    assert_eq!((&none["stopped_by"], &none["tokens"]), (&json!("deadline"), &json!([])));
}

#[test]
fn the_default_length_fills_the_context_and_no_more() {
    let room = room();
    let found = room.json(&format!("{GENERATE} --tokens 1,2,3 --ignore-eos --json"));
    assert_eq!(found["tokens"].as_array().map(Vec::len), Some(512 - 3 + 1));
    let small = room.json(&format!("{GENERATE} --tokens 1,2,3 --ignore-eos --max-context 20 --json"));
    assert_eq!(small["tokens"].as_array().map(Vec::len), Some(20 - 3 + 1));
    let exact = room.json(&format!("{GENERATE} --tokens 1,2,3 --ignore-eos --max-new-tokens 510 --json"));
    assert_eq!(found["tokens"], exact["tokens"]);
}

#[test]
fn seeds_repeat_and_differ() {
    let room = room();
    let draw = |more: &str| {
        let line = format!("{GENERATE} --raw --prompt Once --max-new-tokens 40 --ignore-eos --json {more}");
        room.json(&line)["tokens"].clone()
    };
    let hot = "--temperature 1 --seed";
    let max = u64::MAX;
    assert_eq!(draw(&format!("{hot} 7")), draw(&format!("{hot} 7 --threads 1")));
    let several: Vec<_> = [7, 8, 1 << 32, max].map(|seed| draw(&format!("{hot} {seed}"))).into();
    for (n, one) in several.iter().enumerate() {
        assert!(several[..n].iter().all(|other| other != one), "seed {n} repeats another");
    }
    let greedy = draw("");
    assert_ne!(greedy, several[0]);
    for cold in ["--temperature 0 --seed 9", "--temperature 1 --top-k 1", "--temperature 1 --min-p 1"] {
        assert_eq!(draw(cold), greedy, "{cold}");
    }
}

#[test]
fn a_checkpoints_own_sampling_is_the_default() {
    let room = room();
    room.write(
        "hybrid/generation_config.json",
        r#"{"do_sample": true, "temperature": 1.5, "eos_token_id": 12}"#,
    );
    let draw = |more: &str| {
        room.json(&format!("{GENERATE} --raw --prompt Once --max-new-tokens 40 --ignore-eos --json {more}"))
    };
    let drawn = draw("");
    assert_eq!(drawn["tokens"], draw("--temperature 1.5")["tokens"]);
    assert_ne!(drawn["tokens"], draw("--temperature 0")["tokens"]);
}

#[test]
fn token_ids_need_no_tokenizer() {
    let room = room();
    let recital = &recitals()[0];
    let ids: Vec<u32> = serde_json::from_value(recital["prompt_ids"].clone()).expect("token ids");
    let ids = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        room.remove(&format!("hybrid/{file}"));
    }
    let found = room.json(&format!("{GENERATE} --tokens {ids} --json"));
    assert_eq!(found["tokens"], recital["new_ids"]);
    let mut wanted = String::new();
    for id in recital["new_ids"].as_array().expect("token ids") {
        write!(wanted, "{id} ").expect("a string");
    }
    assert_eq!(room.succeeds(&format!("{GENERATE} --tokens {ids}")).trim_end(), wanted.trim_end());
}

#[test]
fn prompts_may_look_like_options() {
    let room = room();
    let found = room.json(&format!("{GENERATE} --prompt '--json' --max-new-tokens 2 --stop '--' --json"));
    assert_eq!(found["tokens"].as_array().map(Vec::len), Some(2));
}
