// An MCP server on stdin and stdout, one JSON object a line: says what fruit weighs.
// Its tools have what such servers send: a long name, odd schemas, an error, a picture among texts.
"use strict";
const long = "weigh_" + "a_fruit_with_a_name_that_goes_on_".repeat(2);
const schema = (properties) => ({ $schema: "http://json-schema.org/draft-07/schema#", type: "object", properties });
const fruit = { type: "string", pattern: "^(?!stone)[a-z]+$", description: "which fruit" };
const tools = [
  { name: "weigh", description: "Says what a fruit weighs", inputSchema: schema({ fruit, pattern: { type: "boolean" } }) },
  { name: long, description: "Says the same", inputSchema: schema({ fruit: { anyOf: [fruit, { $ref: "#/$defs/no" }] } }) },
  { name: "list", description: "Lists all fruit", inputSchema: { type: "object" } },
];
const png =
  "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFklEQVR4nGNQaLhAEmIY1TCqYfhqAADz/nAQL9YshwAAAABJRU5ErkJggg==";
const call = ({ name, arguments: given }) => {
  if (name === "list") return { isError: true, content: [{ type: "text", text: "the list is lost" }] };
  const content = [{ type: "text", text: `one ${given.fruit} weighs 150 g` }];
  if (name === long) content.push({ type: "image", data: png, mimeType: "image/png" });
  return { content };
};
const answers = {
  initialize: ({ protocolVersion }) => ({
    protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "fruit", version: "1" },
  }),
  "tools/list": () => ({ tools }),
  "tools/call": call,
  ping: () => ({}),
};
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  const answer = answers[method];
  const told = answer ? { result: answer(params ?? {}) } : { error: { code: -32601, message: "unknown" } };
  process.stdout.write(JSON.stringify({ jsonrpc: "2.0", id, ...told }) + "\n");
});
