package file

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// rowFiller makes a T of the fields of a row.
type rowFiller[T any] struct {
	fill func(fields []string, v *T) error
}

// fieldError is what is wrong with one field of a row.
type fieldError struct {
	column string
	err    error
}

func (e *fieldError) Error() string { return fmt.Sprintf("column %q: %v", e.column, e.err) }
func (e *fieldError) Unwrap() error { return e.err }

// newRowFiller compares T with the names of the columns.
func newRowFiller[T any](columns []string) (rowFiller[T], error) {
	f := rowFiller[T]{}
	for i, name := range columns {
		if slices.Contains(columns[:i], name) {
			return f, fmt.Errorf("two columns are named %q", name)
		}
	}
	switch any((*T)(nil)).(type) {
	case *map[string]string:
		f.fill = func(fields []string, v *T) error {
			row := make(map[string]string, len(fields))
			for i, text := range fields {
				row[columns[i]] = text
			}
			*any(v).(*map[string]string) = row
			return nil
		}
		return f, nil
	case *[]string:
		f.fill = func(fields []string, v *T) error {
			*any(v).(*[]string) = slices.Clone(fields)
			return nil
		}
		return f, nil
	}
	t := reflect.TypeFor[T]()
	if t.Kind() != reflect.Struct {
		return f, fmt.Errorf("a row cannot become a %v: only map[string]string, []string, or a struct", t)
	}
	setters, err := settersOf(t, columns)
	if err != nil {
		return f, err
	}
	f.fill = func(fields []string, v *T) error {
		row := reflect.ValueOf(v).Elem()
		for i := range setters {
			s := &setters[i]
			if err := s.set(row.FieldByIndex(s.index), fields[s.column]); err != nil {
				return &fieldError{columns[s.column], err}
			}
		}
		return nil
	}
	return f, nil
}

// setter puts a column into a field.
type setter struct {
	index  []int
	column int
	set    func(v reflect.Value, text string) error
}

func settersOf(t reflect.Type, columns []string) ([]setter, error) {
	var setters []setter
	for _, field := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(field.Tag.Get("csv"), ",")
		if !field.IsExported() || name == "-" || field.Anonymous && name == "" {
			continue
		}
		if len(field.Index) > 1 && throughPointer(t, field.Index) {
			return nil, fmt.Errorf("field %s is embedded by a pointer", field.Name)
		}
		if name == "" {
			name = field.Name
		}
		if options != "" && options != "optional" {
			return nil, fmt.Errorf("field %s has the tag option %q, which is none", field.Name, options)
		}
		column := slices.Index(columns, name)
		if column < 0 && options == "optional" {
			continue
		}
		if column < 0 {
			return nil, fmt.Errorf("there is no column %q, only %q", name, columns)
		}
		set, err := setterOf(field.Type)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", field.Name, err)
		}
		setters = append(setters, setter{field.Index, column, set})
	}
	return setters, nil
}

// throughPointer tells whether a field is reached through an embedded pointer.
func throughPointer(t reflect.Type, index []int) bool {
	for _, i := range index[:len(index)-1] {
		if t = t.Field(i).Type; t.Kind() == reflect.Pointer {
			return true
		}
	}
	return false
}

var textType = reflect.TypeFor[encoding.TextUnmarshaler]()

// setterOf gives how text becomes a value of a type. Text that is empty leaves the zero value.
func setterOf(t reflect.Type) (func(reflect.Value, string) error, error) {
	if reflect.PointerTo(t).Implements(textType) {
		return func(v reflect.Value, text string) error {
			if text == "" {
				return nil
			}
			return v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
		}, nil
	}
	if t.Kind() == reflect.Pointer {
		inner, err := setterOf(t.Elem())
		if err != nil {
			return nil, err
		}
		return func(v reflect.Value, text string) error {
			if text == "" {
				return nil
			}
			v.Set(reflect.New(t.Elem()))
			return inner(v.Elem(), text)
		}, nil
	}
	set := plainSetterOf(t)
	if set == nil {
		return nil, fmt.Errorf("text cannot become a %v", t)
	}
	if t.Kind() == reflect.String {
		return set, nil
	}
	return func(v reflect.Value, text string) error {
		if text == "" {
			return nil
		}
		return set(v, text)
	}, nil
}

func plainSetterOf(t reflect.Type) func(reflect.Value, string) error {
	switch t.Kind() {
	case reflect.String:
		return func(v reflect.Value, text string) error { v.SetString(text); return nil }
	case reflect.Bool:
		return func(v reflect.Value, text string) error {
			b, err := strconv.ParseBool(text)
			v.SetBool(b)
			return err
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(v reflect.Value, text string) error {
			n, err := strconv.ParseInt(text, 10, t.Bits())
			v.SetInt(n)
			return err
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return func(v reflect.Value, text string) error {
			n, err := strconv.ParseUint(text, 10, t.Bits())
			v.SetUint(n)
			return err
		}
	case reflect.Float32, reflect.Float64:
		return func(v reflect.Value, text string) error {
			x, err := strconv.ParseFloat(text, t.Bits())
			v.SetFloat(x)
			return err
		}
	}
	return nil
}
