// Prints llama.cpp's tokens of texts: node subword_golden.mjs texts.json MODEL.gguf
import fs from "node:fs";
import {pathToFileURL} from "node:url";
import path from "node:path";

const entry = path.resolve("node_modules/node-llama-cpp/dist/index.js");
const {getLlama} = await import(pathToFileURL(entry));
const [texts, model] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const {tokenize} = await llama.loadModel({modelPath: path.resolve(model), vocabOnly: true})
    .then((loaded) => ({tokenize: (text) => loaded.tokenize(text)}));
const all = JSON.parse(fs.readFileSync(texts)).map((text) => Array.from(tokenize(text), Number));
process.stdout.write(JSON.stringify(all));
