// A small application of drizzle's, with most of its types: `node drizzle_application.js URL STEPS`.
"use strict";
const fs = require("fs");
const path = require("path");
const { atWork, told } = require("./at_work");
const { asc, count, eq, gt, isNull, like, sql } = require("drizzle-orm");

const url = process.argv[2];
const onPostgres = url.startsWith("postgres");

// Its own migrations, as drizzle-kit writes them for each side.
const FIRST = {
  sqlite: [
    "CREATE TABLE `Author` (`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL, `name` text NOT NULL,"
      + " `active` integer DEFAULT true NOT NULL, `mood` text, `born` text, `joined` integer NOT NULL,"
      + " `seen` integer, `made` integer DEFAULT (unixepoch()), `big` blob, `price` numeric,"
      + " `prefs` text, `doc` blob, `tags` text, `nums` text, `token` text, `data` blob, `ip` text,"
      + " `deletedAt` integer)",
    "CREATE UNIQUE INDEX `Author_name_unique` ON `Author` (`name`)",
    "CREATE UNIQUE INDEX `Author_token_unique` ON `Author` (`token`)",
    "CREATE TABLE `books` (`id` text PRIMARY KEY NOT NULL, `title` text NOT NULL, `author_id` integer,"
      + " `parent_id` text, `price` numeric NOT NULL,"
      + " `loud` text GENERATED ALWAYS AS (upper(`title`)) VIRTUAL, `is_new` integer NOT NULL,"
      + " FOREIGN KEY (`author_id`) REFERENCES `Author`(`id`) ON DELETE cascade,"
      + " FOREIGN KEY (`parent_id`) REFERENCES `books`(`id`) ON DELETE set null,"
      + ' CONSTRAINT "price_pos" CHECK(`price` >= 0))',
    "CREATE UNIQUE INDEX `new_title` ON `books` (`title`) WHERE `is_new` = 1",
    "CREATE TABLE `author_book` (`author_id` integer NOT NULL, `book_id` text NOT NULL, `note` text,"
      + " PRIMARY KEY(`author_id`, `book_id`),"
      + " FOREIGN KEY (`author_id`) REFERENCES `Author`(`id`) ON DELETE cascade,"
      + " FOREIGN KEY (`book_id`) REFERENCES `books`(`id`) ON DELETE cascade)",
    "CREATE VIEW `live_authors` AS select `id` from `Author` where `deletedAt` is null",
  ],
  pg: [
    `CREATE TYPE "public"."mood" AS ENUM('sad', 'happy')`,
    `CREATE TABLE "Author" ("id" serial PRIMARY KEY NOT NULL, "name" text NOT NULL,
      "active" boolean DEFAULT true NOT NULL, "mood" "mood", "born" date, "joined" timestamp(3) NOT NULL,
      "seen" timestamp(0) with time zone, "made" timestamp DEFAULT now(), "big" bigint,
      "price" numeric(12, 2), "prefs" jsonb, "doc" jsonb, "tags" text[], "nums" integer[], "token" uuid,
      "data" bytea, "ip" inet, "deletedAt" timestamp(3),
      CONSTRAINT "Author_name_unique" UNIQUE("name"), CONSTRAINT "Author_token_unique" UNIQUE("token"))`,
    `CREATE TABLE "books" ("id" uuid PRIMARY KEY NOT NULL, "title" varchar(120) NOT NULL,
      "author_id" integer, "parent_id" uuid, "price" numeric(10, 2) NOT NULL,
      "loud" text GENERATED ALWAYS AS (upper("title")) STORED, "is_new" boolean NOT NULL,
      CONSTRAINT "price_pos" CHECK ("price" >= 0))`,
    `ALTER TABLE "books" ADD CONSTRAINT "books_author_id_Author_id_fk" FOREIGN KEY ("author_id")
      REFERENCES "public"."Author"("id") ON DELETE cascade`,
    `ALTER TABLE "books" ADD CONSTRAINT "books_parent_id_books_id_fk" FOREIGN KEY ("parent_id")
      REFERENCES "public"."books"("id") ON DELETE set null`,
    `CREATE UNIQUE INDEX "new_title" ON "books" USING btree ("title") WHERE "is_new"`,
    `CREATE TABLE "author_book" ("author_id" integer NOT NULL, "book_id" uuid NOT NULL, "note" text,
      CONSTRAINT "author_book_author_id_book_id_pk" PRIMARY KEY("author_id","book_id"))`,
    `ALTER TABLE "author_book" ADD CONSTRAINT "author_book_author_id_Author_id_fk"
      FOREIGN KEY ("author_id") REFERENCES "public"."Author"("id") ON DELETE cascade`,
    `ALTER TABLE "author_book" ADD CONSTRAINT "author_book_book_id_books_id_fk"
      FOREIGN KEY ("book_id") REFERENCES "public"."books"("id") ON DELETE cascade`,
    `CREATE VIEW "public"."live_authors" AS (select "id" from "Author" where "deletedAt" is null)`,
  ],
};

// The next release: named constraints go and come as others, a type changes, a column is added.
const SECOND = {
  sqlite: [],
  pg: [
    `ALTER TABLE "books" DROP CONSTRAINT "price_pos"`,
    `ALTER TABLE "books" ADD CONSTRAINT "price_low" CHECK ("price" >= -5)`,
    `ALTER TABLE "author_book" DROP CONSTRAINT "author_book_author_id_Author_id_fk"`,
    `ALTER TABLE "Author" ALTER COLUMN "price" SET DATA TYPE numeric(14, 2)`,
    `ALTER TABLE "books" ADD COLUMN "rating" integer`,
  ],
};

function tables() {
  if (onPostgres) {
    const p = require("drizzle-orm/pg-core");
    const mood = p.pgEnum("mood", ["sad", "happy"]);
    const bytea = p.customType({ dataType: () => "bytea" });
    return {
      author: p.pgTable("Author", {
        id: p.serial("id").primaryKey(), name: p.text("name").notNull(),
        active: p.boolean("active").notNull().default(true), mood: mood("mood"), born: p.date("born"),
        joined: p.timestamp("joined", { precision: 3 }).notNull(),
        seen: p.timestamp("seen", { precision: 0, withTimezone: true }),
        made: p.timestamp("made").defaultNow(), big: p.bigint("big", { mode: "bigint" }),
        price: p.numeric("price", { precision: 12, scale: 2 }), prefs: p.jsonb("prefs"),
        doc: p.jsonb("doc"), tags: p.text("tags").array(), nums: p.integer("nums").array(),
        token: p.uuid("token"), data: bytea("data"), ip: p.inet("ip"),
        deletedAt: p.timestamp("deletedAt", { precision: 3 }),
      }),
      book: p.pgTable("books", {
        id: p.uuid("id").primaryKey(), title: p.varchar("title", { length: 120 }).notNull(),
        authorId: p.integer("author_id"), parentId: p.uuid("parent_id"),
        price: p.numeric("price", { precision: 10, scale: 2 }).notNull(),
        loud: p.text("loud").generatedAlwaysAs(sql`upper(title)`), isNew: p.boolean("is_new").notNull(),
      }),
      link: p.pgTable("author_book", {
        authorId: p.integer("author_id").notNull(), bookId: p.uuid("book_id").notNull(),
        note: p.text("note"),
      }),
    };
  }
  const s = require("drizzle-orm/sqlite-core");
  return {
    author: s.sqliteTable("Author", {
      id: s.integer("id").primaryKey({ autoIncrement: true }), name: s.text("name").notNull(),
      active: s.integer("active", { mode: "boolean" }).notNull().default(true), mood: s.text("mood"),
      born: s.text("born"), joined: s.integer("joined", { mode: "timestamp_ms" }).notNull(),
      seen: s.integer("seen", { mode: "timestamp" }),
      made: s.integer("made", { mode: "timestamp" }).default(sql`(unixepoch())`),
      big: s.blob("big", { mode: "bigint" }), price: s.numeric("price"),
      prefs: s.text("prefs", { mode: "json" }), doc: s.blob("doc", { mode: "json" }),
      tags: s.text("tags", { mode: "json" }), nums: s.text("nums", { mode: "json" }),
      token: s.text("token"), data: s.blob("data", { mode: "buffer" }), ip: s.text("ip"),
      deletedAt: s.integer("deletedAt", { mode: "timestamp_ms" }),
    }),
    book: s.sqliteTable("books", {
      id: s.text("id").primaryKey(), title: s.text("title").notNull(),
      authorId: s.integer("author_id"), parentId: s.text("parent_id"), price: s.numeric("price").notNull(),
      loud: s.text("loud").generatedAlwaysAs(sql`upper(title)`),
      isNew: s.integer("is_new", { mode: "boolean" }).notNull(),
    }),
    link: s.sqliteTable("author_book", {
      authorId: s.integer("author_id").notNull(), bookId: s.text("book_id").notNull(), note: s.text("note"),
    }),
  };
}

function opened() {
  if (onPostgres) {
    const pool = new (require("pg").Pool)({ connectionString: url, max: 1 });
    const db = require("drizzle-orm/node-postgres").drizzle(pool);
    const { migrate } = require("drizzle-orm/node-postgres/migrator");
    return { db, migrate, all: async (query) => (await db.execute(query)).rows, close: () => pool.end() };
  }
  const file = new (require("better-sqlite3"))(url.replace("sqlite://", ""));
  file.pragma("foreign_keys = ON");
  const db = require("drizzle-orm/better-sqlite3").drizzle(file);
  const { migrate } = require("drizzle-orm/better-sqlite3/migrator");
  return { db, migrate, all: (query) => db.all(query), close: () => file.close() };
}

const { author, book, link } = tables();
const { db, migrate, all, close } = opened();

function migrateTo(releases) {
  const side = onPostgres ? "pg" : "sqlite";
  const folder = path.join(process.cwd(), `migrations_${side}`);
  fs.mkdirSync(path.join(folder, "meta"), { recursive: true });
  const entries = releases.map((statements, idx) => {
    const tag = `000${idx}_release`;
    fs.writeFileSync(path.join(folder, `${tag}.sql`), statements[side].join(";\n--> statement-breakpoint\n"));
    return { idx, version: "7", when: 1700000000000 + idx, tag, breakpoints: true };
  });
  const dialect = onPostgres ? "postgresql" : "sqlite";
  fs.writeFileSync(path.join(folder, "meta", "_journal.json"), JSON.stringify({ version: "7", dialect, entries }));
  return migrate(db, { migrationsFolder: folder });
}

const uuid = (n) => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;
const at = (i, ms = 0) => new Date(Date.UTC(2024, 0, 1, i % 24, 0, i % 60, ms));

// Nobody is deleted, seen or has numbers yet: those columns have no value when the move is planned.
const person = (i) => ({
  name: `N${i} ü`, active: i % 2 === 0, mood: [null, "sad", "happy"][i % 3], born: `${1950 + i}-01-02`,
  joined: at(i, i), big: 2n ** 60n + BigInt(i), price: (i * 1.25).toFixed(2),
  prefs: { "ä": [i, null, 1.5], b: i > 5 ? { c: "x" } : false }, doc: { n: i },
  tags: i % 3 ? ["a b", 'q"', "c,d"].slice(0, i % 4) : null, token: uuid(i),
  data: i % 4 ? Buffer.from([0, 255, i]) : null, ip: `10.0.0.${i}`,
});

function shown(row) {
  const plain = { ...row, made: row.made && "set" };
  if (row.price) plain.price = Number(row.price);
  return JSON.stringify(plain, (_, value) => {
    if (typeof value === "bigint") return String(value);
    if (value && value.type === "Buffer") return Buffer.from(value.data).toString("hex");
    const keyed = value && typeof value === "object" && !Array.isArray(value);
    return keyed ? Object.fromEntries(Object.entries(value).sort()) : value;
  });
}

const refused = async (query) => {
  try { await query; return 0; } catch { return 1; }
};

const steps = {
  create: () => migrateTo([FIRST]),
  async fill() {
    for (let i = 1; i <= 30; i++) await db.insert(author).values(person(i));
    for (let i = 1; i <= 40; i++) {
      await db.insert(book).values({
        id: uuid(i), title: `T${i % 13}`, authorId: 1 + (i % 20), parentId: i % 3 ? uuid(Math.max(1, i - 1)) : null,
        price: (i * 0.25).toFixed(2), isNew: i <= 13,
      });
    }
    for (let i = 1; i <= 30; i++) {
      await db.insert(link).values({ authorId: i, bookId: uuid(1 + ((i * 7) % 40)), note: i % 2 ? "" : null });
    }
  },
  work: () => atWork(async (name, number) => {
    const token = uuid(100000 + number);
    const [made] = await db.insert(author).values({ ...person(number % 30), name, token }).returning();
    const row = { title: name, authorId: made.id, price: "1.25", isNew: number % 2 === 0 };
    await db.insert(book).values({ ...row, id: token });
    await db.insert(link).values({ authorId: made.id, bookId: token, note: name });
    await db.update(author).set({ prefs: { next: name } }).where(eq(author.token, uuid(99999 + number)));
    await db.insert(book).values({ ...row, id: uuid(99999), title: "passing" });
    await db.delete(book).where(eq(book.id, uuid(99999)));
  }),
  async worked() {
    const found = await db.select({ name: author.name }).from(author)
      .innerJoin(link, eq(link.authorId, author.id)).where(like(author.name, "work %"));
    told(found.map((row) => row.name));
  },
  async write() {
    await db.update(author).set({ tags: ["new"], prefs: { z: 1 }, seen: at(3), nums: [1, 2], deletedAt: at(4, 5) })
      .where(eq(author.name, "N3 ü"));
    await db.delete(author).where(eq(author.name, "N7 ü"));
    await db.insert(book).values({ id: uuid(500), title: "later", authorId: 2, price: "7.25", isNew: true });
  },
  async use() {
    for (const row of await db.select().from(author).orderBy(asc(author.id))) console.log(shown(row));
    for (const row of await db.select().from(book).orderBy(asc(book.id))) console.log(shown(row));
    for (const row of await db.select().from(link).orderBy(asc(link.authorId))) console.log(shown(row));
    const names = (rows) => rows.map((row) => row.name).join();
    const some = (where) => db.select({ name: author.name }).from(author).where(where).orderBy(asc(author.id));
    console.log(names(await some(eq(author.active, true))), names(await some(gt(author.joined, at(20)))));
    console.log(names(await some(eq(author.token, uuid(5)))), (await some(isNull(author.deletedAt))).length);
    console.log(Number((await all(sql`select count(*) as n from live_authors`))[0].n));
    console.log(await refused(db.update(book).set({ price: "-9" }).where(eq(book.id, uuid(1)))));
    const double = { id: uuid(900), title: "T1", price: "1", isNew: true };
    console.log(await refused(db.insert(book).values(double)));
    const [made] = await db.insert(author).values({ name: "new", joined: at(1), deletedAt: at(2, 3) }).returning();
    const [again] = await db.select().from(author).where(eq(author.id, made.id));
    console.log(made.id > 30, again.active, again.deletedAt.toISOString(), again.made instanceof Date);
    await db.delete(author).where(eq(author.id, made.id));
    console.log((await db.select({ n: count() }).from(author))[0].n);
  },
  async upgrade() {
    await migrateTo([FIRST, SECOND]);
    await db.execute(sql`UPDATE books SET rating = 7 WHERE id = ${uuid(2)}`);
  },
};

(async () => {
  for (const name of process.argv.slice(3)) await steps[name]();
  await close();
})().catch((error) => { console.error(error); process.exit(1); });
