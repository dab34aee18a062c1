package determinant_test

import (
	"fmt"
	"os"

	"github.com/understudy-stream/understudy/determinant"
)

func ExampleEncoder() {
	var enc determinant.Encoder
	var log []byte
	for _, d := range []determinant.Determinant{
		{Kind: determinant.KindMark, Epoch: 1},
		{Kind: determinant.KindInput, Channel: 2, N: 100},
		{Kind: determinant.KindTime, Time: 1767225600000},
	} {
		log = enc.Append(log, &d)
	}
	fmt.Printf("% x\n", log)
	// Output: 0c 01 21 64 f7 f1 cf ea b6 b7 33
}

func ExampleDecoder() {
	log := []byte{0x0c, 0x01, 0x21, 0x64}
	var dec determinant.Decoder
	var d determinant.Determinant
	for len(log) > 0 {
		n, err := dec.Next(log, &d)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(d.Kind, d.Epoch, d.Channel, d.N)
		log = log[n:]
	}
	// Output:
	// mark 1 0 0
	// input 0 2 100
}

func ExamplePrint() {
	log := []byte{0x0c, 0x01, 0x21, 0x64, 0x04, 0x01, 0x00}
	if err := determinant.Print(os.Stdout, log, 4096); err != nil {
		fmt.Println(err)
	}
	// Output:
	//       4096  mark epoch=1
	//       4098  input channel=2 n=100
	//       4100  checkpoint epoch=1 mode=exactly-once depth=full
}

func ExampleCursor() {
	fmt.Println(determinant.Cursor{Next: 12, Epoch: 3, Bytes: 4096, CRC: 0xcafe})
	// Output: 12@3(4096,0000cafe)
}

func ExampleDeterminant() {
	d := determinant.Determinant{Kind: determinant.KindCall, Hash: 1, Bytes: []byte("timeout"), Failed: true}
	fmt.Println(d.String())
	// Output: call hash=0000000000000001 error="timeout"
}

func ExampleParseMode() {
	mode, err := determinant.ParseMode("at-least-once")
	fmt.Println(mode, err, mode.Logs(), mode.Retains())
	// Output: at-least-once <nil> false true
}
