// transformers.js asked for raw logits: node ask.mjs FOLDER DTYPE < {"query": "...", "passages": ["..."]}; prints a JSON list.
import { readFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [modules, folder, dtype] = process.argv.slice(2);
const found = createRequire(`${modules}/package.json`).resolve('@huggingface/transformers');
const { AutoModelForSequenceClassification, AutoTokenizer, env } = await import(pathToFileURL(found));
env.allowRemoteModels = false;
env.localModelPath = dirname(folder);
const tokenizer = await AutoTokenizer.from_pretrained(basename(folder));
const model = await AutoModelForSequenceClassification.from_pretrained(basename(folder), { dtype });
const { query, passages } = JSON.parse(readFileSync(0));
const inputs = tokenizer(passages.map(() => query), { text_pair: passages, padding: true, truncation: true });
const { logits } = await model(inputs);
console.log(JSON.stringify(Array.from(logits.data)));
