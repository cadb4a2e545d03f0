// A small application of TypeORM's, with most of its types: `node typeorm_application.js URL STEPS`.
"use strict";
require("reflect-metadata");
const { atWork, told } = require("./at_work");
const { DataSource, EntitySchema, Like, MoreThan, TableCheck, TableColumn } = require("typeorm");

const url = process.argv[2];
const onPostgres = url.startsWith("postgres");

const Book = new EntitySchema({
  name: "Book",
  columns: {
    id: { type: Number, primary: true, generated: true },
    title: { type: String, length: 120 },
    price: { type: "decimal", precision: 10, scale: 2 },
    pages: { type: "smallint", default: 10 },
    createdAt: { type: Date, createDate: true },
    deletedAt: { type: Date, deleteDate: true, nullable: true },
  },
  indices: [{ name: "book_title", columns: ["title"] }],
  checks: [{ name: "price_pos", expression: '"price" >= 0' }],
  relations: { parent: { type: "many-to-one", target: "Book", onDelete: "SET NULL" } },
});

const Author = new EntitySchema({
  name: "Author",
  columns: {
    id: { type: Number, primary: true, generated: true },
    name: { type: String, unique: true },
    active: { type: Boolean, default: true },
    born: { type: "date", nullable: true },
    woke: { type: "time", nullable: true },
    joined: { type: Date },
    big: { type: "bigint" },
    score: { type: "double precision", nullable: true },
    small: { type: "real", nullable: true },
    prefs: { type: "simple-json" },
    tags: { type: "simple-array" },
    mood: { type: "simple-enum", enum: ["sad", "happy"], nullable: true },
    token: { type: "uuid", generated: "uuid" },
    data: { type: onPostgres ? "bytea" : "blob", nullable: true },
    note: { type: "text", nullable: true },
    version: { type: Number, version: true },
  },
  relations: { books: { type: "many-to-many", target: "Book", joinTable: true, cascade: true } },
});

class First1700000000000 {
  name = "First1700000000000";
  async up(runner) { await runner.query("SELECT 1"); }
  async down() {}
}

// The next release: a named constraint goes and comes as another, a type changes, a column is added.
class Second1800000000000 {
  name = "Second1800000000000";
  async up(runner) {
    await runner.dropCheckConstraint("book", "price_pos");
    const check = new TableCheck({ name: "price_low", expression: '"price" >= -5' });
    await runner.createCheckConstraint("book", check);
    await runner.query('ALTER TABLE "book" ALTER COLUMN "pages" TYPE integer');
    await runner.addColumn("book", new TableColumn({ name: "rating", type: "int", isNullable: true }));
    await runner.query('UPDATE "book" SET "rating" = 7 WHERE "id" = 2');
  }
  async down() {}
}

const source = (migrations) => new DataSource({
  ...(onPostgres
    ? { type: "postgres", url }
    : { type: "better-sqlite3", database: url.replace("sqlite://", "") }),
  entities: [Book, Author], migrations, synchronize: false,
});

const iso = (value) => (value ? new Date(value).toISOString() : value);

const steps = {
  async create(db) {
    await db.synchronize();
    await db.runMigrations();
  },
  async fill(db) {
    const books = [];
    for (let i = 0; i < 40; i++) {
      books.push(await db.getRepository(Book).save({
        title: `T${i} ü`, price: i / 4, parent: i % 3 ? books[i - 1] : null, pages: i,
      }));
    }
    await db.getRepository(Book).softDelete(40);
    for (let i = 0; i < 30; i++) {
      await db.getRepository(Author).save({
        name: `N${i}`, active: i % 2 === 0, born: `${1950 + i}-01-02`,
        woke: i % 5 ? `0${i % 9}:05:06` : null, joined: new Date(Date.UTC(2024, 0, 1, i % 24, 0, 0, i)),
        big: String(2 ** 40 + i), score: i / 7, small: i / 8, prefs: { "ä": [i, null, 1.5] },
        tags: ["a b", '"q"'].slice(0, i % 3), mood: [null, "sad", "happy"][i % 3],
        data: i % 4 ? Buffer.from([0, 255, i]) : null, note: "line\n'\"\\ %s",
        books: [books[i % 7], books[7 + (i % 5)]],
      });
    }
  },
  work(db) {
    const [authors, books] = [db.getRepository(Author), db.getRepository(Book)];
    return atWork(async (name, number) => {
      await authors.save({
        name, joined: new Date(Date.UTC(2023, 0, 1)), big: String(number), prefs: { n: number }, tags: ["work"],
        mood: "happy", data: Buffer.from(name), books: [{ title: name, price: number % 7 }],
      });
      const former = await authors.findOneBy({ name: `work ${String(number - 1).padStart(6, "0")}` });
      if (former) await authors.save({ ...former, note: name });
      const passing = await books.save({ title: "passing", price: 1 });
      await books.remove(passing);
    });
  },
  async worked(db) {
    const found = await db.getRepository(Author).find({ where: { name: Like("work %") }, relations: { books: true } });
    told(found.flatMap((a) => a.books.filter((b) => b.title === a.name).map(() => a.name)));
  },
  async write(db) {
    const authors = db.getRepository(Author);
    const a = await authors.findOne({ where: { name: "N3" }, relations: { books: true } });
    Object.assign(a, { active: true, woke: "01:02:03", tags: ["new", "x"], books: a.books.slice(0, 1) });
    await authors.save(a);
    await db.getRepository(Book).save({ title: "later", price: 7.25 });
  },
  async use(db) {
    const authors = db.getRepository(Author);
    for (const name of ["N3", "N4", "N7"]) {
      const a = await authors.findOne({ where: { name }, relations: { books: true } });
      console.log(a.active, a.born, a.woke, iso(a.joined), String(a.big), a.score, a.small, a.version);
      console.log(JSON.stringify(a.prefs), JSON.stringify(a.tags), a.mood, a.token, a.note);
      console.log(a.data ? a.data.toString("hex") : null);
      console.log(a.books.map((b) =>
        [b.title, Number(b.price), b.pages, iso(b.createdAt)].join()).sort().join("; "));
      console.log((await authors.findOne({ where: { token: a.token } })).name);
    }
    const late = await authors.find({
      where: { joined: MoreThan(new Date(Date.UTC(2024, 0, 1, 20))) }, order: { id: "ASC" },
    });
    console.log(late.map((a) => a.name).join());
    console.log(await authors.countBy({ active: true }), await db.getRepository(Book).count());
    console.log(await db.getRepository(Book).count({ withDeleted: true }));
    const wrong = db.getRepository(Book).update(3, { price: -9 }).then(() => 0, () => 1);
    console.log("refused", await wrong);
    const made = await authors.save({
      name: "new", joined: new Date(), big: "1", prefs: {}, tags: ["x"], books: [],
    });
    const again = await authors.findOneBy({ id: made.id });
    console.log(made.id > 30, again.active, again.version, again.token.length);
    await authors.remove(again);
  },
  async upgrade(db) { await db.runMigrations(); },
};

(async () => {
  const names = process.argv.slice(3);
  const db = source(names.includes("upgrade") ? [First1700000000000, Second1800000000000] : [First1700000000000]);
  await db.initialize();
  for (const name of names) await steps[name](db);
  await db.destroy();
})().catch((error) => { console.error(error); process.exit(1); });
