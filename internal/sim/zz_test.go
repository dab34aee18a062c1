package sim
import ("testing";"os";"bufio")
func TestZZ(t *testing.T){
 f,_:=os.Create("/tmp/splits_t.txt"); b:=bufio.NewWriter(f)
 o:=growingOptions(2140); o.Trace=b
 n:=0
 o.Script=nil
 _ = n
 go func(){}()
 r:=func() Result { w:=newWorld(o); defer w.close(); w.start(); for !w.over && w.result.Violation==nil && w.step<400000 { w.tick() }; 
 b.Flush(); t.Logf("faults due %v restarts %v revivals %v unsettled %d saving %v last %d", w.faults.due,w.faults.restarts,w.faults.revivals,len(w.unsettled),w.faults.saving,w.faults.last)
 for _,p:=range w.processes { t.Logf("%d alive %v suspected %v paused %d cut %d", p.id,p.alive,p.suspected,p.pausedUntil,p.cutOffUntil) }
 return w.result}()
 t.Logf("%v %v",r,r.Violation)
}
