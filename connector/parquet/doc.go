// Package parquet reads the rows of Parquet files.
//
// It stands at the head of a record's way. A split is a row group: the part of a file that can be read without the others. Its offsets
// count rows, so that every position can be read again whatever the encoding and compression of the columns.
// docs/connectors/parquet.md tells what may fail and what happens then.
//
// Goroutines: the package starts none. A Source may be used from several goroutines, a Reader from one.
package parquet
