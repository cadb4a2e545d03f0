// Which database to use now: `new Following(directory).side()` before each request costs one stat.
// `node follow.mjs DIRECTORY` prints the side for writes whenever it changes.
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";

export class Following {
  #file;
  #seen = "";
  #said;

  constructor(directory) {
    this.#file = join(directory, "database.json");
  }

  // What takes writes, or answers reads. The files are replaced by a rename, so that one of them is
  // read whole: the old version or the new one.
  side(purpose = "write") {
    const found = statSync(this.#file, { bigint: true });
    const now = `${found.ino} ${found.mtimeNs}`;
    if (now !== this.#seen) {
      this.#said = JSON.parse(readFileSync(this.#file, "utf8"));
      this.#seen = now;
    }
    return this.#said[purpose];
  }
}

function words(side) {
  return side.engine === "sqlite"
    ? `sqlite ${side.path}`
    : `postgresql ${side.host}:${side.port}/${side.database}`;
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const following = new Following(argv[2]);
  let last = "";
  setInterval(() => {
    const now = words(following.side());
    if (now !== last) console.log(now);
    last = now;
  }, 50);
}
