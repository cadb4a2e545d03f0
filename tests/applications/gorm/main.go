// A small application of GORM's, with most of its types: `application URL STEPS`.
package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/glebarez/sqlite"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

type Book struct {
	gorm.Model
	Title    string  `gorm:"size:120;index"`
	Price    float64 `gorm:"check:price_pos,price >= 0"`
	ParentID *uint
	Parent   *Book `gorm:"constraint:OnDelete:SET NULL"`
	Pages    int16
}

type Author struct {
	ID      uint64 `gorm:"primaryKey"`
	Name    string `gorm:"uniqueIndex;not null"`
	Active  bool
	Joined  time.Time
	Seen    *time.Time
	Born    sql.NullTime
	Score   sql.NullFloat64
	Small   float32
	Count   uint32
	Big     int64
	Data    []byte
	Note    sql.NullString
	Prefs   map[string]any `gorm:"serializer:json"`
	Tags    []string       `gorm:"serializer:json"`
	Touched int64          `gorm:"autoUpdateTime:milli"`
	Books   []Book         `gorm:"many2many:author_books;constraint:OnDelete:CASCADE"`
}

type Mark struct {
	AuthorID uint64 `gorm:"primaryKey;autoIncrement:false"`
	Subject  string `gorm:"primaryKey;size:40"`
	Value    *int
	Author   Author `gorm:"constraint:OnDelete:CASCADE"`
}

func open(url string) *gorm.DB {
	var dialect gorm.Dialector = sqlite.Open(strings.TrimPrefix(url, "sqlite://") + "?_pragma=foreign_keys(1)&_pragma=busy_timeout(10000)")
	if strings.HasPrefix(url, "postgres") {
		dialect = postgres.Open(url)
	}
	db, err := gorm.Open(dialect, &gorm.Config{Logger: logger.Default.LogMode(logger.Silent)})
	must(err)
	return db
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func create(db *gorm.DB) { must(db.AutoMigrate(&Book{}, &Author{}, &Mark{})) }

func fill(db *gorm.DB) {
	books := make([]Book, 40)
	for i := range books {
		books[i] = Book{Title: fmt.Sprintf("T%d ü", i), Price: float64(i) / 4, Pages: int16(i)}
	}
	must(db.Create(&books).Error)
	for i := 1; i < 40; i += 2 {
		must(db.Model(&books[i]).Update("parent_id", 1).Error)
	}
	must(db.Delete(&books[39]).Error)
	for i := 0; i < 30; i++ {
		at := time.Date(2024, 1, 1, i%24, 0, 0, i*1000000, time.UTC)
		author := Author{
			Name: fmt.Sprintf("N%d", i), Active: i%2 == 0, Joined: at,
			Born:  sql.NullTime{Time: time.Date(1950+i, 1, 2, 0, 0, 0, 0, time.UTC), Valid: i%3 > 0},
			Score: sql.NullFloat64{Float64: float64(i) / 7, Valid: i%2 == 0}, Small: float32(i) / 8,
			Count: uint32(i), Big: 1<<40 + int64(i), Data: []byte("\x00\xff bytes")[:i%8],
			Note:  sql.NullString{String: "line\n'\"\\ %s", Valid: i%4 == 0},
			Prefs: map[string]any{"ä": []any{i, nil, 1.5}}, Tags: []string{"a b", "\"q\""}[:i%3],
			Books: []Book{books[i%7], books[7+i%5]},
		}
		if i%5 > 0 {
			author.Seen = &at
		}
		must(db.Create(&author).Error)
		value := i
		must(db.Create(&Mark{AuthorID: author.ID, Subject: "Ä", Value: &value}).Error)
	}
}

// Rows in a loop, until there is a file `stop`; each that was acknowledged is in `working`.
func work(db *gorm.DB) {
	log, err := os.OpenFile("working", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	must(err)
	defer log.Close()
	for number := 1; ; number++ {
		if _, err := os.Stat("stop"); err == nil {
			return
		}
		name := fmt.Sprintf("work %06d", number)
		author := Author{
			Name: name, Active: true, Joined: time.Now(), Count: uint32(number), Big: int64(number),
			Prefs: map[string]any{"n": number}, Tags: []string{"work"}, Data: []byte(name),
			Books: []Book{{Title: name, Price: float64(number%7) / 4}},
		}
		must(db.Create(&author).Error)
		value := -number
		must(db.Create(&Mark{AuthorID: author.ID, Subject: "work", Value: &value}).Error)
		must(db.Model(&Author{}).Where("name = ?", fmt.Sprintf("work %06d", number-1)).Update("note", name).Error)
		if number%3 == 0 {
			must(db.Delete(&author.Books[0]).Error)
		}
		_, err = fmt.Fprintln(log, name)
		must(err)
		time.Sleep(5 * time.Millisecond)
	}
}

func worked(db *gorm.DB) {
	var names []string
	must(db.Model(&Author{}).Joins("JOIN marks ON marks.author_id = authors.id AND marks.subject = ?", "work").
		Where("authors.name LIKE ?", "work %").Pluck("authors.name", &names).Error)
	sort.Strings(names)
	for _, name := range names {
		fmt.Println(name)
	}
}

func write(db *gorm.DB) {
	var author Author
	must(db.First(&author, "name = ?", "N3").Error)
	author.Active, author.Seen, author.Tags = true, nil, []string{"new", "with, comma"}
	must(db.Save(&author).Error)
	must(db.Model(&author).Association("Books").Clear())
	must(db.Create(&Book{Title: "later", Price: 7.25}).Error)
	must(db.Where("value = ?", 5).Delete(&Mark{}).Error)
}

func use(db *gorm.DB) {
	for _, name := range []string{"N3", "N4", "N7"} {
		var a Author
		must(db.Preload("Books").First(&a, "name = ?", name).Error)
		prefs, _ := json.Marshal(a.Prefs)
		fmt.Println(a.ID, a.Active, a.Joined.UTC(), a.Seen == nil, a.Born.Valid, a.Born.Time.UTC(), a.Score, a.Small)
		fmt.Printf("%d %d %x %q %s %q %v\n", a.Count, a.Big, a.Data, a.Note.String, prefs, a.Tags, a.Touched > 0)
		titles := []string{}
		for _, book := range a.Books {
			titles = append(titles, fmt.Sprint(book.Title, book.Price, book.Pages, book.ParentID != nil))
		}
		sort.Strings(titles)
		fmt.Println(titles)
	}
	var late []string
	must(db.Model(&Author{}).Where("joined > ?", time.Date(2024, 1, 1, 20, 0, 0, 0, time.UTC)).Order("id").Pluck("name", &late).Error)
	fmt.Println(late)
	var active, marks, gone, left int64
	must(db.Model(&Author{}).Where("active = ?", true).Count(&active).Error)
	must(db.Model(&Mark{}).Count(&marks).Error)
	must(db.Unscoped().Model(&Book{}).Where("deleted_at IS NOT NULL").Count(&gone).Error)
	must(db.Model(&Book{}).Count(&left).Error)
	fmt.Println(active, marks, gone, left)
	refused := db.Exec("UPDATE books SET price = -9 WHERE id = 3").Error
	fmt.Println(refused != nil)
	author := Author{Name: "new", Joined: time.Now(), Books: []Book{{Title: "passing"}}}
	must(db.Create(&author).Error)
	must(db.First(&author, author.ID).Error)
	fmt.Println(author.ID > 30, len(author.Tags))
	must(db.Unscoped().Select("Books").Delete(&author).Error)
	must(db.Unscoped().Where("title = ?", "passing").Delete(&Book{}).Error)
}

// The next release of Book.
type Book2 struct {
	gorm.Model
	Title  string `gorm:"size:200;index:idx_books_title"`
	Price  float64
	Pages  int64
	Rating *int
}

func (Book2) TableName() string { return "books" }

func upgrade(db *gorm.DB) {
	must(db.Migrator().DropConstraint(&Book{}, "price_pos"))
	must(db.AutoMigrate(&Book2{}))
	must(db.Exec("ALTER TABLE books ADD CONSTRAINT price_pos CHECK (price >= -5)").Error)
	must(db.Exec("UPDATE books SET rating = 7 WHERE id = 2").Error)
}

func main() {
	db := open(os.Args[1])
	steps := map[string]func(*gorm.DB){"create": create, "fill": fill, "write": write, "use": use, "upgrade": upgrade,
		"work": work, "worked": worked}
	for _, step := range os.Args[2:] {
		steps[step](db)
	}
}
