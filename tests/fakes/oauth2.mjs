// An issuer from the npm package oauth2-mock-server, told what to do by lines of JSON: one answer for each.
import { createInterface } from "node:readline";

const [, , library, port] = process.argv;
const { OAuth2Server } = await import(library);

const server = new OAuth2Server();
const url = `http://127.0.0.1:${port}`;
server.issuer.url = url;

// What the next tokens of the code flow say beyond what the package puts there.
let said = {};
server.service.on("beforeTokenSigning", (token) => Object.assign(token.payload, said));

const commands = {
  // A new key, or one in the place of the key of this kid; there is no way to take one back but to end the issuer.
  key: ({ alg, kid }) => server.issuer.keys.generate(alg, { kid }),
  say: ({ claims }) => void (said = claims),
  token: ({ kid, expires_in: expiresIn, claims }) =>
    server.issuer.buildToken({ kid, expiresIn, scopesOrTransform: (_, payload) => Object.assign(payload, claims) }),
};

await server.start(Number(port), "127.0.0.1");
for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...rest } = JSON.parse(line);
  const answer = await commands[name](rest);
  process.stdout.write(`${JSON.stringify(name === "token" ? answer : null)}\n`);
}
process.exit();
