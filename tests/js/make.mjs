// Makes a document that Motet has never seen: node make.mjs OUT FIELD=VALUE...
import { writeFileSync } from "node:fs";
import * as Automerge from "@automerge/automerge";

const [output, kind] = process.argv.slice(2);
const contents = {
  plain: { title: "Ka Pō", lyrics: "E hoʻi ke aloha\n".repeat(100), verses: [{ id: "a", text: "kai" }], plays: new Automerge.Counter(3) },
  date: { title: "Ka Pō", made: new Date(0) },
  bytes: { title: "Ka Pō", cover: new Uint8Array([1, 2, 3]) },
};
writeFileSync(output, Automerge.save(Automerge.from(contents[kind])));
