//! Laws that do not hold, through the same harness: it would notice.

use nemoc::saturate::law::{Class, Law, Parsed, When};

use crate::execute;
use crate::kit::{Case, Draw};
use crate::sides::Fault;
use crate::{DRAWS, ffn, linear};

/// A wrong law, and what is to be said of it.
struct Planted {
    law: Law,
    case: Case,
    caught: fn(&Fault) -> bool,
}

const fn wrong(name: &'static str, class: Class, left: &'static str, right: &'static str) -> Law {
    Law { name, class, left, right, when: &[] }
}

fn unequal(fault: &Fault) -> bool {
    matches!(fault, Fault::Unequal(_))
}

fn bits(fault: &Fault) -> bool {
    matches!(fault, Fault::Bits(_))
}

fn ill_typed(fault: &Fault) -> bool {
    matches!(fault, Fault::IllTyped(_))
}

#[rustfmt::skip]
const PLANTED: &[Planted] = &[
    Planted {
        law: wrong("gate and up swapped", Class::Exact,
            "(swiglu (linear ?x ?g ?p) (linear ?x ?u ?p) ?d)",
            "(linear_swiglu ?x ?u ?g ?p ?d)"),
        case: |draw| { ffn::products(draw, &["g", "u"]); draw.dtypes(&["p", "d"]); },
        caught: unequal,
    },
    Planted {
        law: wrong("maxima of other logits", Class::Exact,
            "?y = (sample ?l), ?m = (tile_max ?o 16)",
            "?y = (sample_tiled ?l ?m 16)"),
        case: |draw| { draw.logits("l", 100); draw.logits("o", 100); },
        caught: unequal,
    },
    Planted {
        law: wrong("residual added twice", Class::Reassociating,
            "(add ?r (linear ?x ?w ?p) ?d)",
            "(add ?r (linear_add ?x ?w ?r ?p ?d) ?d)"),
        case: |draw| { linear::residual(draw); draw.dtypes(&["p", "d"]); },
        caught: unequal,
    },
    Planted {
        law: wrong("residual dropped", Class::Reassociating,
            "(add ?r (linear ?x ?w ?p) ?d)",
            "(linear ?x ?w ?d)"),
        case: |draw| { linear::residual(draw); draw.dtypes(&["p", "d"]); },
        caught: unequal,
    },
    Planted {
        law: wrong("eps of another norm", Class::Exact,
            "(linear (rms_norm (rms_norm ?x ?n ?eps ?group ?m) ?n ?other ?group ?m) ?w ?d)",
            "(norm_linear (rms_norm ?x ?n ?eps ?group ?m) ?n ?w ?eps ?group ?m ?d)"),
        case: |draw| {
            let (k, n) = (draw.norm("n"), draw.size());
            draw.value("x", k);
            draw.weight("w", n, k);
            draw.float("other", 1.5);
            draw.dtypes(&["m", "d"]);
        },
        caught: unequal,
    },
    Planted {
        law: wrong("queries and keys swapped", Class::Exact,
            "?y = (linear ?x ?q ?p), ?s = (linear_kv_append ?x ?k ?v ?kv ?p)",
            "?t = (linear_qkv ?x ?k ?q ?v ?kv ?p), ?y = (get.0 ?t), ?s = (get.1 ?t)"),
        case: equal_heads,
        caught: unequal,
    },
    Planted {
        law: wrong("keys and values swapped", Class::Exact,
            "(kv_append (linear ?x ?k ?p) (linear ?x ?v ?p) ?kv)",
            "(linear_kv_append ?x ?v ?k ?kv ?p)"),
        case: |draw| {
            let width = draw.size();
            draw.value("x", width);
            draw.weight("k", 6, width);
            draw.weight("v", 6, width);
            draw.cache("kv", 3, 2);
            draw.dtypes(&["p"]);
        },
        caught: unequal,
    },
    Planted {
        law: wrong("a rounding dropped, and called exact", Class::Exact,
            "(linear_relu2 ?x ?w bf16 ?d)",
            "(linear_relu2 ?x ?w f32 ?d)"),
        case: |draw| { ffn::products(draw, &["w"]); draw.dtypes(&["d"]); },
        caught: bits,
    },
    Planted {
        law: Law {
            name: "columns from one too far",
            class: Class::Exact,
            left: "?p = (linear ?x ?w ?d), ?l = (slice ?p 0 ?i), ?m = (slice ?p ?i ?j), ?r = (slice ?p ?o ?k)",
            right: "?t = (linear_split ?x ?w ?i ?j ?k ?d), ?l = (get.0 ?t), ?m = (get.1 ?t), ?r = (get.2 ?t)",
            when: &[When::Sum("?o", &["?i", "?j", "?one"])],
        },
        case: |draw| {
            let (left, middle, right, k) = (draw.size(), draw.size(), draw.size(), draw.size());
            draw.value("x", k);
            draw.weight("w", left + middle + right + 1, k);
            let widths = [("i", left), ("j", middle), ("k", right), ("one", 1), ("o", left + middle + 1)];
            widths.iter().for_each(|(name, width)| draw.int(name, *width));
            draw.dtypes(&["d"]);
        },
        caught: unequal,
    },
    Planted {
        law: wrong("step sizes without their limits", Class::Exact,
            "(dt_softplus ?dt ?bias ?min ?max)",
            "(dt_softplus ?dt ?bias ?low ?max)"),
        case: |draw| {
            let heads = draw.size();
            draw.value("dt", heads);
            draw.small("bias", &[heads]);
            for (name, limit) in [("min", 0.4), ("low", 0.0), ("max", 1.0)] {
                draw.float(name, limit);
            }
        },
        caught: unequal,
    },
    Planted {
        law: wrong("another dtype", Class::Exact,
            "(add ?r (linear ?x ?w ?p) ?d)",
            "(linear_add ?x ?w ?r ?d ?p)"),
        case: |draw| { linear::residual(draw); draw.dtypes(&["p", "d"]); },
        caught: ill_typed,
    },
    Planted {
        law: wrong("another width", Class::Exact,
            "?p = (linear ?x ?w ?d), ?l = (slice ?p 0 ?i), ?m = (slice ?p ?i ?j)",
            "?t = (linear_split ?x ?w ?j ?i ?k ?d), ?l = (get.0 ?t), ?m = (get.1 ?t)"),
        case: |draw| linear::columns(draw, 2, 3, 1),
        caught: ill_typed,
    },
    Planted {
        law: wrong("operands that no op takes", Class::Exact,
            "(linear (rms_norm ?x ?n ?eps ?group ?m) ?w ?d)",
            "(norm_linear ?x ?w ?n ?eps ?group ?m ?d)"),
        case: |draw| {
            let (k, n) = (draw.norm("n"), draw.size());
            draw.value("x", k);
            draw.weight("w", n, k);
            draw.dtypes(&["m", "d"]);
        },
        caught: ill_typed,
    },
];

/// As many queries as keys, so that a mistake between them is well typed.
fn equal_heads(draw: &mut Draw) {
    let width = draw.size();
    draw.value("x", width);
    for name in ["q", "k", "v"] {
        draw.weight(name, 4, width);
    }
    draw.cache("kv", 2, 2);
    draw.dtypes(&["p"]);
}

/// Variables that only a condition or a right side has are bound by the case: here a law may be as wrong as it likes.
fn parsed(law: Law) -> Parsed {
    let side = |text| nemoc::saturate::law::equations(text).unwrap_or_else(|what| panic!("{what}"));
    Parsed { law, left: side(law.left), right: side(law.right) }
}

#[test]
fn a_wrong_law_is_caught() {
    for planted in PLANTED {
        let parsed = parsed(planted.law);
        let faults = (0..DRAWS).filter_map(|seed| execute::run(&parsed, planted.case, seed).err());
        let faults: Vec<Fault> = faults.collect();
        assert!(!faults.is_empty(), "nobody notices: {}", planted.law.name);
        let other = faults.iter().find(|fault| !(planted.caught)(fault));
        assert!(other.is_none(), "{}: {other:?}", planted.law.name);
    }
}

#[test]
#[should_panic(expected = "does not see to it that ?o is ?i + ?j")]
fn a_case_to_which_its_law_does_not_apply_is_caught() {
    let law = nemoc::saturate::laws::parsed().iter().find(|parsed| parsed.law.name == "columns-by-layout");
    let law = law.expect("the table has it");
    let _ = execute::run(
        law,
        |draw| {
            linear::columns(draw, 2, 3, 1);
            draw.int("o", 4);
        },
        0,
    );
}
