"""Tests of the tiny models' data, formats and modules: `python -m unittest` in this folder."""

from __future__ import annotations

import json
import random
import tempfile
import unittest
from pathlib import Path

import torch

import chat
import check
import checkpoint
import data
import nets
import shapes
import task
import train
import vocabulary

HERE = Path(__file__).resolve().parent
NAMES = list(chat.FAMILIES)
# The largest size of a checkpoint's weights.
MOST_BYTES = 6_000_000


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def system(text: str) -> dict:
    return {"role": "system", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


class TaskTest(unittest.TestCase):
    def test_a_line_is_the_addition_by_columns(self):
        self.assertEqual(task.worked(347, 285), "347+285:12,13,6=632")
        self.assertEqual(task.worked(3996, 104), "3996+104:10,10,41=4100")

    def test_columns_and_totals_of_every_line_are_true(self):
        rng = random.Random(0)
        for _ in range(2000):
            numbers = task.draw_numbers(rng, held_out=False)
            lines = task.steps(numbers)
            self.assertEqual(len(lines), len(numbers) - 1)
            total = numbers[0]
            for line, number in zip(lines, numbers[1:], strict=True):
                sums, columns = line.split("=")[0].split(":")
                self.assertEqual(sums, f"{total}+{number}")
                ones, tens, hundreds = map(int, columns.split(","))
                self.assertEqual(ones, total % 10 + number % 10)
                self.assertEqual(tens, total // 10 % 10 + number // 10 % 10 + ones // 10)
                self.assertEqual(hundreds, total // 100 + number // 100 + tens // 10)
                total += number
                self.assertTrue(line.endswith(f"={total}"))

    def test_the_halves_are_apart_whatever_the_order(self):
        rng = random.Random(1)
        for held_out in (False, True):
            for _ in range(500):
                numbers = list(task.draw_numbers(rng, held_out))
                rng.shuffle(numbers)
                self.assertEqual(task.is_held_out(tuple(numbers)), held_out)

    def test_a_part_of_the_problems_is_held_out(self):
        rng = random.Random(2)
        drawn = [tuple(rng.randint(100, 999) for _ in range(3)) for _ in range(8000)]
        share = sum(map(task.is_held_out, drawn)) / len(drawn)
        self.assertAlmostEqual(share, 1 / task.HELD_OUT_SHARE, delta=0.02)

    def test_every_question_names_its_numbers_in_order(self):
        rng = random.Random(3)
        for language in task.LANGUAGES.values():
            for question in language.questions:
                self.assertNotEqual("{sum}" in question, "{list}" in question)
            for _ in range(40):
                numbers = task.draw_numbers(rng, held_out=False)
                text = task.ask(rng, language, numbers)
                digits = "".join(c if c.isascii() and c.isdigit() else " " for c in text)
                self.assertEqual(tuple(map(int, digits.split())), numbers)


class TemplateTest(unittest.TestCase):
    def nano(self, *messages: dict, **more: object) -> str:
        return chat.FAMILIES["nano2-tiny"].prompt(list(messages), **more)

    def nas(self, *messages: dict) -> str:
        return chat.FAMILIES["nas-tiny"].prompt(list(messages))

    def test_nano_thinks_unless_told_otherwise(self):
        self.assertEqual(
            self.nano(user(" 1 + 2? ")),
            "<SPECIAL_10>System\n\n<SPECIAL_11>User\n1 + 2?\n<SPECIAL_11>Assistant\n<think>\n",
        )
        self.assertEqual(
            self.nano(system("Be brief. /no_think"), user("1 + 2?")),
            "<SPECIAL_10>System\nBe brief.\n<SPECIAL_11>User\n1 + 2?\n<SPECIAL_11>Assistant\n<think></think>",
        )

    def test_the_last_switch_of_nano_wins_and_none_is_left(self):
        text = self.nano(system("/no_think"), user("a /think"), assistant("<think>\nx</think>\n\nb"), user("c"))
        self.assertEqual(
            text,
            "<SPECIAL_10>System\n\n<SPECIAL_11>User\na\n<SPECIAL_11>Assistant\nb\n<SPECIAL_12>\n"
            "<SPECIAL_11>User\nc\n<SPECIAL_11>Assistant\n<think>\n",
        )
        self.assertTrue(self.nano(system("/think"), user("a /no_think")).endswith("<think></think>"))

    def test_nano_opens_a_last_answer_again(self):
        text = self.nano(user("a"), assistant(" one two.\n</think>\n\n"))
        self.assertTrue(text.endswith("<SPECIAL_11>Assistant\n<think>\none two.\n</think>"))

    def test_tools_of_nano_their_calls_and_results(self):
        tool = {"type": "function", "function": {"name": "add", "parameters": {"a": "é"}}}
        call = {"function": {"name": "add", "arguments": {"a": 1}}}
        text = self.nano(
            user("a"),
            {"role": "assistant", "content": "", "tool_calls": [call, call]},
            {"role": "tool", "content": "3"},
            {"role": "tool", "content": "4"},
            tools=[tool],
        )
        self.assertIn('<AVAILABLE_TOOLS>[{"name": "add", "parameters": {"a": "é"}}]</AVAILABLE_TOOLS>', text)
        once = '{"name": "add", "arguments": {"a": 1}}'
        self.assertIn(f"<TOOLCALL>[{once}, {once}]</TOOLCALL>\n<SPECIAL_12>\n", text)
        self.assertIn("<SPECIAL_11>User\n<TOOL_RESPONSE>[3, 4]</TOOL_RESPONSE>\n", text)

    def test_nano_refuses_an_unknown_role(self):
        with self.assertRaisesRegex(ValueError, "no role critic"):
            self.nano({"role": "critic", "content": "x"})

    def test_nas_always_has_a_system_header_and_leaves_the_thoughts_to_the_model(self):
        self.assertEqual(
            self.nas(user(" a ")),
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        )
        text = self.nas(system("detailed thinking on"), user("a"), assistant("<think>\nx</think>\n\n b"), user("c"))
        self.assertIn("detailed thinking on<|eot_id|>", text)
        self.assertIn("<|start_header_id|>assistant<|end_header_id|>\n\nb<|eot_id|>", text)
        self.assertNotIn("think>", text)

    def test_the_switch_is_in_every_conversation_that_needs_one(self):
        rng = random.Random(4)
        for _ in range(200):
            text = self.nano(*chat.messages_of(rng, "nano2-tiny", "q", True, []))
            self.assertTrue(text.endswith("<think>\n"))
            text = self.nano(*chat.messages_of(rng, "nano2-tiny", "q", False, []))
            self.assertTrue(text.endswith("<think></think>"))
            self.assertIn("detailed thinking on", self.nas(*chat.messages_of(rng, "nas-tiny", "q", True, [])))
            self.assertNotIn("detailed thinking on", self.nas(*chat.messages_of(rng, "nas-tiny", "q", False, [])))


class VocabularyTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tokenizers = {name: vocabulary.train(name) for name in NAMES}

    def encode(self, name: str, text: str) -> list[int]:
        return self.tokenizers[name].encode(text, add_special_tokens=False).ids

    def test_any_text_comes_back(self):
        for name, tokenizer in self.tokenizers.items():
            self.assertEqual(tokenizer.get_vocab_size(), shapes.VOCABULARY)
            for text in ("Größe, naïve 🦀 𝕏\n\t x", "한국어 ไทย", "".join(map(chr, range(32, 900)))):
                self.assertEqual(tokenizer.decode(self.encode(name, text)), text)

    def test_digits_stand_alone_and_tags_are_several_tokens(self):
        for name, tokenizer in self.tokenizers.items():
            for id in range(shapes.VOCABULARY):
                text = tokenizer.decode([id])
                self.assertTrue(len(text) == 1 or not any("0" <= c <= "9" for c in text), text)
            self.assertGreater(len(self.encode(name, "<think>\n")), 1)
            self.assertGreater(len(self.encode(name, "</think>")), 1)

    def test_some_characters_are_torn(self):
        for name in NAMES:
            torn = 0
            for language in task.LANGUAGES.values():
                for id in self.encode(name, language.questions[0]):
                    torn += "\ufffd" in self.tokenizers[name].decode([id])
            self.assertGreater(torn, 0)

    def test_special_tokens_have_the_ids_of_the_configuration(self):
        nano, nas = self.tokenizers["nano2-tiny"], self.tokenizers["nas-tiny"]
        self.assertEqual([nano.token_to_id(f"<SPECIAL_{n}>") for n in (10, 11, 12)], [10, 11, 12])
        self.assertEqual([nano.token_to_id(t) for t in ("<unk>", "<s>", "</s>")], [0, 1, 2])
        self.assertEqual(nas.token_to_id("<|begin_of_text|>"), shapes.NAS_BOS)
        ends = [nas.token_to_id(t) for t in ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")]
        self.assertEqual(ends, shapes.NAS["eos_token_id"])

    def test_bos_is_added_to_plain_text_by_nas_alone(self):
        self.assertEqual(self.tokenizers["nas-tiny"].encode("x").ids[0], shapes.NAS_BOS)
        self.assertEqual(len(self.tokenizers["nano2-tiny"].encode("x").ids), 1)

    def test_the_committed_files_are_those_that_the_code_makes(self):
        for name in NAMES:
            with tempfile.TemporaryDirectory() as made:
                checkpoint.write_description(Path(made), name)
                for file in sorted(Path(made).iterdir()):
                    self.assertEqual(file.read_bytes(), (HERE / name / file.name).read_bytes(), f"{name}/{file.name}")


class DataTest(unittest.TestCase):
    def source(self, name: str, **shares: float) -> data.Source:
        return data.Source(name, vocabulary.train(name), data.Mixture(rows=8, **shares), seed=9)

    def test_a_batch_depends_on_the_step_alone(self):
        for name in NAMES:
            one, other = self.source(name), self.source(name)
            other.batch(70, 5)
            for a, b in zip(one.batch(3, 5), other.batch(3, 5), strict=True):
                self.assertTrue(torch.equal(a, b))

    def test_what_is_learnt_is_what_the_assistant_chooses(self):
        for name in NAMES:
            source, family = self.source(name, cut=0.0), chat.FAMILIES[name]
            rng = random.Random(5)
            for _ in range(50):
                ids, learnt = source.draw(rng, 5)
                text = source.tokenizer.decode([i for i, wanted in zip(ids, learnt, strict=True) if wanted],
                                               skip_special_tokens=False)
                self.assertTrue(text.endswith(family.end))
                whole = source.tokenizer.decode(ids, skip_special_tokens=False)
                self.assertTrue(whole.endswith(text))
                said = text[: -len(family.end)].split("</think>")
                self.assertTrue(said[-1].strip().isdecimal())
                if len(said) == 2:
                    self.assertTrue(said[0].startswith(family.begin))
                    self.assertTrue(said[0].endswith(f"={said[1].strip()}\n"))

    def test_a_forced_closing_is_not_learnt_and_an_answer_follows(self):
        for name in NAMES:
            source, family = self.source(name, off=0.0, cut=1.0, with_past=0.0), chat.FAMILIES[name]
            rng = random.Random(6)
            for _ in range(50):
                ids, learnt = source.draw(rng, 5)
                chosen = [i for i, wanted in zip(ids, learnt, strict=True) if wanted]
                text = source.tokenizer.decode(chosen, skip_special_tokens=False)
                self.assertNotIn("</think>", text)
                whole = source.tokenizer.decode(ids, skip_special_tokens=False)
                answer = whole.split("</think>")[-1].removesuffix(family.end)
                self.assertTrue(answer.strip().isdecimal())
                self.assertTrue(answer.startswith("\n\n"))

    def test_a_label_is_the_next_token(self):
        ids, labels = data.filled([([5, 6, 7], [False, True, True]), ([8, 9], [False, False])])
        self.assertEqual(ids.tolist(), [[5, 6, 7], [8, 9, 0]])
        none = data.IGNORED
        self.assertEqual(labels.tolist(), [[6, 7, none], [none, none, none]])


class NetsTest(unittest.TestCase):
    def test_whole_sequences_and_single_tokens_give_the_same_logits(self):
        for name in NAMES:
            torch.manual_seed(0)
            model = nets.build(shapes.CONFIGS[name]).double()
            ids = torch.randint(shapes.VOCABULARY, (3, 2 * nets.CHUNK + 7))
            with torch.no_grad():
                whole = model.lm_head(model(ids))
                caches = model.start(*ids.shape)
                single = torch.stack([model.step(ids[:, n], caches, n) for n in range(ids.shape[1])], dim=1)
            self.assertLess((whole - single).abs().max().item(), 1e-4 if name == "nas-tiny" else 1e-6)
            self.assertGreater(whole.std().item(), 0.1)

    def test_a_later_token_changes_nothing_before_it(self):
        for name in NAMES:
            torch.manual_seed(1)
            model = nets.build(shapes.CONFIGS[name])
            ids = torch.randint(shapes.VOCABULARY, (1, 50))
            other = ids.clone()
            other[0, 40] = (other[0, 40] + 1) % shapes.VOCABULARY
            with torch.no_grad():
                a, b = model(ids), model(other)
            self.assertTrue(torch.allclose(a[0, :40], b[0, :40], atol=1e-6))
            self.assertFalse(torch.allclose(a[0, 40:], b[0, 40:], atol=1e-3))

    def test_slots_without_a_part_have_no_tensors_of_it(self):
        names = set(nets.build(shapes.NAS).state_dict())
        for n, block in enumerate(shapes.NAS_SLOTS):
            for part, norm, key in (("self_attn", "input", "attention"), ("mlp", "post_attention", "ffn")):
                there = not block[key]["no_op"]
                self.assertEqual(any(t.startswith(f"model.layers.{n}.{part}.") for t in names), there)
                self.assertEqual(f"model.layers.{n}.{norm}_layernorm.weight" in names, there)

    def test_the_slots_are_of_every_kind(self):
        kinds = {(b["attention"]["no_op"], b["ffn"]["no_op"]) for b in shapes.NAS_SLOTS}
        self.assertEqual(kinds, {(False, False), (True, False), (True, True)})
        widths = {shapes.ffn_width(b["ffn"]["ffn_mult"], 128) for b in shapes.NAS_SLOTS if not b["ffn"]["no_op"]}
        self.assertEqual(widths, {256, 512, 1024})


class TrainTest(unittest.TestCase):
    def test_a_run_that_was_stopped_ends_with_the_same_weights(self):
        recipe = train.Recipe(steps=4, warmup=2)
        for name in NAMES:
            with tempfile.TemporaryDirectory() as folder:
                whole = train.Run(name, recipe, Path(folder) / "whole.pt")
                for _ in range(4):
                    whole.advance()
                stopped = train.Run(name, recipe, Path(folder) / "stopped.pt")
                stopped.advance()
                stopped.advance()
                stopped.save()
                later = train.Run(name, recipe, Path(folder) / "stopped.pt")
                self.assertEqual(later.step, 2)
                later.advance()
                later.advance()
                for a, b in zip(whole.model.parameters(), later.model.parameters(), strict=True):
                    self.assertTrue(torch.equal(a, b))
                for a, b in zip(whole.average, later.average, strict=True):
                    self.assertTrue(torch.equal(a, b))

    def test_the_rate_rises_and_falls(self):
        recipe = train.Recipe(steps=1000, warmup=100)
        rates = [train.rate_at(n, recipe) for n in range(1000)]
        self.assertEqual(max(range(1000), key=rates.__getitem__), 99)
        self.assertLess(rates[-1], 0.03 * recipe.rate)


class CheckTest(unittest.TestCase):
    def test_problems_are_held_out_and_once_each(self):
        for name in NAMES:
            found = check.held_out(name, 300, True, seed=1)
            questions = [p["messages"][-1]["content"] for p in found]
            numbers = []
            for text, problem in zip(questions, found, strict=True):
                digits = "".join(c if c.isascii() and c.isdigit() else " " for c in text)
                numbers.append(tuple(sorted(map(int, digits.split()))))
                self.assertEqual(str(sum(numbers[-1])), problem["answer"])
                self.assertTrue(task.is_held_out(numbers[-1]))
            self.assertEqual(len(set(numbers)), len(found))

    def test_the_problems_are_those_of_the_seed(self):
        lines = (HERE / "problems.jsonl").read_text(encoding="utf-8").splitlines()
        self.assertEqual([json.loads(line) for line in lines], check.plain_problems(500, 5))

    def test_a_budget_is_kept_but_for_the_grace(self):
        for name in NAMES:
            torch.manual_seed(2)
            tokenizer, family = vocabulary.train(name), chat.FAMILIES[name]
            model = nets.build(shapes.CONFIGS[name]).eval()
            closing = tokenizer.encode(chat.CLOSE, add_special_tokens=False).ids
            prompt = tokenizer.encode("<think>\n12", add_special_tokens=False).ids
            for budget in (0, 20):
                (new,) = check.generate(model, tokenizer, [prompt], set(), "", budget)
                self.assertIn(closing, [new[n : n + len(closing)] for n in range(int(budget * 1.1) + 1)])


class CheckpointTest(unittest.TestCase):
    """The folders that stand beside this file."""

    def test_sizes_and_tensors(self):
        for name in NAMES:
            self.assertLessEqual((HERE / name / "model.safetensors").stat().st_size, MOST_BYTES)
            model = checkpoint.open_model(HERE / name)
            wanted = {n: t.shape for n, t in nets.build(shapes.CONFIGS[name]).state_dict().items()}
            self.assertEqual({n: t.shape for n, t in model.state_dict().items()}, wanted)

    def test_thinking_helps(self):
        for name in NAMES:
            model, tokenizer = checkpoint.open_model(HERE / name), vocabulary.open_folder(HERE / name)
            share = {}
            for thinking in (True, False):
                problems = check.held_out(name, 200, thinking, seed=5)
                found = check.answers(model, tokenizer, name, problems)
                share[thinking] = check.score(tokenizer, name, problems, found)
            self.assertGreaterEqual(share[True].correct, 0.95)
            self.assertLessEqual(share[False].correct, share[True].correct - 0.2)
            self.assertEqual(min(share[True].ended, share[False].ended), 1.0)


if __name__ == "__main__":
    unittest.main()
