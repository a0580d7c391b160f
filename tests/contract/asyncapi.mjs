// Reads an AsyncAPI document with the project's own parser, and tells every error in it.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [tools, document] = process.argv.slice(2);
const { Parser } = createRequire(`${tools}/`)("@asyncapi/parser");
const { diagnostics } = await new Parser().parse(readFileSync(document, "utf8"));
const errors = diagnostics.filter((found) => found.severity === 0);
for (const found of errors) console.log(`${found.path.join("/")}: ${found.message}`);
process.exit(errors.length === 0 ? 0 : 1);
