// A small application of knex's, with most of its types: `node knex_application.js URL STEPS`.
"use strict";
const { atWork, told } = require("./at_work");
const knexOf = require("knex");

const url = process.argv[2];
const onPostgres = url.startsWith("postgres");
const knex = knexOf(
  onPostgres
    ? { client: "pg", connection: url }
    : {
        client: "better-sqlite3",
        connection: { filename: url.replace("sqlite://", "") },
        useNullAsDefault: true,
        pool: { afterCreate: (c, done) => { c.pragma("foreign_keys = ON"); done(null, c); } },
      },
);

const first = {
  name: "20240101_first",
  async up(db) {
    await db.schema.createTable("book", (t) => {
      t.increments("id");
      t.string("title", 120).notNullable().index("book_title");
      t.decimal("price", 10, 2).notNullable();
      t.integer("parent_id").references("book.id").withKeyName("book_parent").onDelete("SET NULL");
      t.smallint("pages").defaultTo(10);
      t.check("price >= 0", {}, "price_pos");
      t.timestamps(true, true);
    });
    await db.schema.createTable("author", (t) => {
      t.increments("id");
      t.string("name").notNullable().unique({ indexName: "author_name" });
      t.boolean("active").notNullable().defaultTo(true);
      t.enu("mood", ["sad", "happy"]);
      t.date("born");
      t.time("woke");
      t.datetime("joined").notNullable();
      t.bigInteger("big");
      t.float("small");
      t.double("score");
      t.json("prefs");
      t.jsonb("tags");
      t.uuid("token").unique();
      t.binary("data");
      t.text("note", "longtext");
    });
    await db.schema.createTable("author_book", (t) => {
      t.integer("author_id").notNullable().references("author.id").onDelete("CASCADE");
      t.integer("book_id").notNullable().references("book.id").onDelete("CASCADE");
      t.primary(["author_id", "book_id"]);
    });
  },
};

// The next release: named constraints go and change, a type changes, a column is added.
const second = {
  name: "20240202_second",
  async up(db) {
    await db.schema.alterTable("book", (t) => {
      t.dropChecks("price_pos");
      t.check("price >= -5", {}, "price_low");
      t.dropForeign([], "book_parent");
      t.integer("pages").alter();
      t.integer("rating");
    });
    await db("book").where({ id: 2 }).update({ rating: 7 });
  },
};

const migrate = (migrations) =>
  knex.migrate.latest({
    migrationSource: {
      getMigrations: async () => migrations,
      getMigrationName: (m) => m.name,
      getMigration: async (m) => ({ up: m.up, down: async () => {} }),
    },
  });

const uuid = (n) => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;
const parsed = (value) => (typeof value === "string" ? JSON.parse(value) : value);
const day = (value) => (value === null ? null : new Date(value).toISOString().slice(0, 10));

const steps = {
  create: () => migrate([first]),
  async fill() {
    for (let i = 0; i < 40; i++) {
      await knex("book").insert({
        title: `T${i} ü`, price: i / 4, parent_id: i % 3 ? i : null,
        created_at: new Date(Date.UTC(2024, 0, 2, i % 24)),
        updated_at: new Date(Date.UTC(2024, 0, 2, i % 24, 0, 0, i)),
      });
    }
    for (let i = 0; i < 30; i++) {
      await knex("author").insert({
        name: `N${i}`, active: i % 2 === 0, mood: [null, "sad", "happy"][i % 3],
        born: `${1950 + i}-01-02`, woke: i % 5 ? `0${i % 9}:05:06` : null,
        joined: new Date(Date.UTC(2024, 0, 1, i % 24, 0, 0, i)), big: 2 ** 40 + i, small: i / 8,
        score: i / 7, prefs: JSON.stringify({ "ä": [i, null, 1.5] }),
        tags: JSON.stringify(["a b", '"q"'].slice(0, i % 3)), token: uuid(i),
        data: Buffer.from([0, 255, i]), note: i % 4 ? "line\n'\"\\ %s" : null,
      });
      await knex("author_book").insert([
        { author_id: i + 1, book_id: 1 + (i % 7) }, { author_id: i + 1, book_id: 8 + (i % 5) },
      ]);
    }
  },
  work: () => atWork(async (name, number) => {
    await knex.transaction(async (all) => {
      const [book] = await all("book").insert({ title: name, price: number % 7 }).returning("id");
      const [author] = await all("author").insert({
        name, mood: "happy", joined: new Date(Date.UTC(2023, 0, 1)), big: number, token: uuid(100000 + number),
        prefs: JSON.stringify({ n: number }), tags: "[]", data: Buffer.from(name),
      }).returning("id");
      await all("author_book").insert({ author_id: author.id, book_id: book.id });
    });
    await knex("author").where({ token: uuid(99999 + number) }).update({ active: false, note: name });
    const [passing] = await knex("book").insert({ title: "passing", price: 1 }).returning("id");
    await knex("book").where({ id: passing.id }).delete();
  }),
  async worked() {
    told(await knex("author").join("author_book", "author.id", "author_id")
      .where("name", "like", "work %").pluck("name"));
  },
  async write() {
    await knex("author").where({ name: "N3" }).update({
      active: true, woke: "01:02:03", tags: JSON.stringify(["new", "with, comma"]),
    });
    await knex("author_book").where({ author_id: 4, book_id: 4 }).delete();
    await knex("book").insert({ title: "later", price: 7.25, parent_id: 2 });
  },
  async use() {
    for (const name of ["N3", "N4", "N7"]) {
      const a = await knex("author").where({ name }).first();
      console.log(Boolean(a.active), a.mood, day(a.born), a.woke, new Date(a.joined).toISOString());
      console.log(Number(a.big), a.small, a.score, JSON.stringify(parsed(a.prefs)));
      console.log(JSON.stringify(parsed(a.tags)), a.token, a.data.toString("hex"), a.note);
      const books = await knex("book").join("author_book", "book.id", "book_id")
        .where({ author_id: a.id }).orderBy("book.id").select("title", "price", "updated_at", "pages");
      console.log(books.map((b) =>
        [b.title, Number(b.price), new Date(b.updated_at).toISOString(), b.pages].join()).join("; "));
    }
    const late = await knex("author").where("joined", ">", new Date(Date.UTC(2024, 0, 1, 20)))
      .orderBy("id").pluck("name");
    console.log(late.join());
    console.log(Number((await knex("author").where({ active: true }).count({ n: "*" }))[0].n));
    console.log(Number((await knex("author").sum({ s: "big" }))[0].s));
    console.log((await knex("book").where("price", ">", 9).orderBy("id").pluck("title")).join());
    console.log((await knex("author").where({ token: uuid(5) }).first()).name);
    const refused = await knex("book").where({ id: 3 }).update({ price: -9 }).then(() => 0, () => 1);
    console.log("refused", refused);
    const [{ id }] = await knex("author").insert({ name: "new", joined: new Date() }).returning("id");
    const made = await knex("author").where({ id }).first();
    console.log(id > 30, Boolean(made.active));
    await knex("author").where({ id }).delete();
  },
  upgrade: () => migrate([first, second]),
};

(async () => {
  for (const name of process.argv.slice(3)) await steps[name]();
  await knex.destroy();
})().catch((error) => { console.error(error); process.exit(1); });
