// Edits a saved document as a program that uses Automerge alone: node edit.mjs IN OUT
import { readFileSync, writeFileSync } from "node:fs";
import * as Automerge from "@automerge/automerge";

const [input, output] = process.argv.slice(2);
let document = Automerge.load(readFileSync(input));
document = Automerge.change(document, (d) => {
  Automerge.splice(d, ["lyrics"], 0, 0, "ʻŌlelo mua\n");
  d.tempo = 96;
  // A set is a map: the element as JSON, and true.
  d.tags[JSON.stringify("hula")] = true;
  d.added = { by: "another program", words: ["kai", "pō"] };
});
console.log(JSON.stringify(document));
// In two parts, as a program writes that saves now and then.
const before = Automerge.save(document);
document = Automerge.change(document, (d) => { d.last = true; });
writeFileSync(output, Buffer.concat([before, Automerge.saveIncremental(document)]));
