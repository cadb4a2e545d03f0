// The application at work while it is moved: a name for each row, until there is a file `stop`; each
// that was acknowledged is in `working`.
const fs = require("fs");

async function atWork(make) {
  for (let number = 1; !fs.existsSync("stop"); number++) {
    const name = `work ${String(number).padStart(6, "0")}`;
    await make(name, number);
    fs.appendFileSync("working", `${name}\n`);
    await new Promise((resolve) => { setTimeout(resolve, 5); });
  }
}

const told = (names) => names.sort().forEach((name) => console.log(name));

module.exports = { atWork, told };
