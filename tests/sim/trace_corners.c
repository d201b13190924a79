/* What Linux answers in each corner that sluice has met, as a table that is run.
 *
 * All answers were measured (Linux 6.18, 2026-11-22) and hold for the model and for the kernel that
 * runs the tests. For the words see trace.h. Some facts that stand here and are easy to get wrong:
 *
 *  - An edge comes for each arrival, and none for what is left unread.
 *  - HUP is "FIN went both ways", or a reset. Bytes may still be readable.
 *  - An error is told once, by whatever asks first: recv, send, splice or SO_ERROR. What recv says
 *    then looks like FIN.
 *  - A reset after FIN is EPIPE to us, if we have not sent FIN ourselves; then it is ECONNRESET.
 *  - What arrived before a reset stays readable, and comes before the error.
 *  - splice stops before an urgent byte, and says there what recv would say behind it: EAGAIN, 0 or
 *    the error.
 *  - splice into a full pipe says EAGAIN, even at the end of the stream or behind a reset. */
#include "base/macros.h"
#include "sim/trace.h"

const struct trace_corner trace_corners[] = {
    {"FIN: read as 0 for ever, and the other direction goes on",
     "connect add wait=OUT wait=nothing pfin wait=IN|OUT|RDHUP wait=nothing recv:9=0 recv:9=0 "
     "wait=nothing error=0 send:3=3 ptake=3+EAGAIN"},
    {"bytes before FIN",
     "connect add wait=OUT psend:5 pfin wait=IN|OUT|RDHUP recv:3=3 wait=nothing recv:9=2 "
     "recv:9=0 in:9=0"},
    {"an edge for each arrival, none for what is left",
     "connect add wait=OUT psend:5 wait=IN|OUT wait=nothing recv:2=2 wait=nothing psend:1 "
     "wait=IN|OUT recv:9=4 recv:9=EAGAIN wait=nothing"},
    {"two arrivals, one event",
     "connect add wait=OUT psend:5 psend:6 wait=IN|OUT wait=nothing recv:9=9 readable=2 "
     "recv:9=2 recv:9=EAGAIN"},
    {"reset: SO_ERROR takes the error",
     "connect add wait=OUT preset wait=IN|OUT|RDHUP|HUP|ERR wait=nothing error=ECONNRESET "
     "error=0 recv:9=0 send:1=EPIPE shut=ENOTCONN wait=IN|OUT|RDHUP|HUP look=IN|OUT|HUP+0+0"},
    {"reset: recv takes the error",
     "connect add wait=OUT preset wait=IN|OUT|RDHUP|HUP|ERR recv:9=ECONNRESET recv:9=0 error=0 "
     "send:1=EPIPE"},
    {"reset: send takes the error",
     "connect add wait=OUT preset wait=IN|OUT|RDHUP|HUP|ERR send:1=ECONNRESET send:1=EPIPE "
     "recv:9=0 error=0"},
    {"reset: splice takes the error",
     "connect add wait=OUT preset wait=IN|OUT|RDHUP|HUP|ERR in:9=ECONNRESET in:9=0 error=0"},
    {"reset behind bytes",
     "connect add wait=OUT psend:5 preset wait=IN|OUT|RDHUP|HUP|ERR recv:3=3 recv:9=2 "
     "recv:9=ECONNRESET recv:9=0"},
    {"reset behind bytes, error taken first: then it looks like FIN",
     "connect psend:5 preset error=ECONNRESET recv:9=5 recv:9=0"},
    {"reset behind bytes, send takes the error",
     "connect psend:5 preset send:1=ECONNRESET recv:9=5 recv:9=0"},
    {"reset behind bytes, splice in",
     "connect psend:5 preset in:9=5 in:9=ECONNRESET in:9=0 held=5 out:9=EPIPE"},
    {"reset while the pipe holds bytes",
     "connect psend:5 in:9=5 preset out:9=ECONNRESET out:9=EPIPE held=5 error=0"},
    {"reset while the pipe holds bytes, error taken first",
     "connect psend:5 in:9=5 preset error=ECONNRESET out:9=EPIPE"},
    {"reset, then shutdown: ENOTCONN does not take the error",
     "connect psend:5 preset shut=ENOTCONN error=ECONNRESET"},
    {"reset behind FIN is EPIPE",
     "connect add wait=OUT pfin wait=IN|OUT|RDHUP preset wait=IN|OUT|RDHUP|HUP|ERR recv:9=0 "
     "recv:9=0 error=EPIPE error=0 look=IN|OUT|HUP+0+0"},
    {"reset behind FIN: send cannot tell it from its own EPIPE",
     "connect pfin preset send:1=EPIPE send:1=EPIPE recv:9=0"},
    {"reset behind bytes and FIN", "connect psend:5 pfin preset recv:9=5 recv:9=0 error=EPIPE"},
    {"our FIN: an edge for the call, one for its acknowledgement",
     "connect add wait=OUT shut=0 wait=OUT wait=nothing look=OUT+0+0 send:1=EPIPE psend:3 "
     "wait=IN|OUT recv:9=3 recv:9=EAGAIN pfin wait=IN|OUT|RDHUP|HUP recv:9=0 preset "
     "wait=nothing error=0"},
    {"our FIN, then theirs: the socket is closed",
     "connect add wait=OUT shut=0 wait=OUT pfin wait=IN|OUT|RDHUP|HUP unacked=0 shut=ENOTCONN "
     "ptake=0+FIN"},
    {"their FIN, then ours: a reset does not reach it any more",
     "connect add wait=OUT pfin wait=IN|OUT|RDHUP shut=0 wait=IN|OUT|RDHUP|HUP wait=nothing "
     "preset wait=nothing error=0"},
    {"our FIN, then a reset",
     "connect add wait=OUT shut=0 wait=OUT psend:4 preset wait=IN|OUT|RDHUP|HUP|ERR recv:9=4 "
     "recv:9=ECONNRESET error=0"},
    {"our FIN is on its way behind bytes",
     "connect pfin fill=EAGAIN shut=0 preset recv:9=0 recv:9=0"},
    {"a full buffer, FIN and reset", "connect pfin fill=EAGAIN preset recv:9=0 error=EPIPE"},
    {"our FIN on its way is no CLOSE_WAIT: ECONNRESET",
     "connect psend:5 pfin fill=EAGAIN shut=0 preset recv:9=5 error=ECONNRESET recv:9=0"},
    {"a full buffer: writable again is an edge",
     "connect add wait=OUT fill=EAGAIN wait=nothing psend:5 wait=IN ptake=many+EAGAIN "
     "wait=IN|OUT send:5=5 ptake=5+EAGAIN"},
    {"a full buffer, then our FIN: writable at once",
     "connect add wait=OUT fill=EAGAIN unacked=some shut=0 wait=OUT wait=nothing unacked=some "
     "ptake=many+FIN unacked=0 wait=OUT"},
    {"a full buffer, FIN and reset: bytes that will never be acknowledged",
     "connect add wait=OUT fill=EAGAIN pfin wait=IN|RDHUP look=IN+0+some preset "
     "wait=IN|OUT|RDHUP|HUP|ERR look=IN|OUT|HUP|ERR+0+some unacked=some"},
    {"a full buffer, the peer closes without reading",
     "connect add wait=OUT fill=EAGAIN pclose wait=IN|OUT|RDHUP|HUP|ERR error=ECONNRESET"},
    {"the peer closes: what we send is answered with a reset",
     "connect add wait=OUT pclose wait=IN|OUT|RDHUP send:5=5 wait=IN|OUT|RDHUP|HUP|ERR "
     "error=EPIPE send:5=EPIPE"},
    {"the peer closes, and so do we",
     "connect add wait=OUT pclose wait=IN|OUT|RDHUP shut=0 wait=IN|OUT|RDHUP|HUP recv:9=0 "
     "error=0"},
    {"the peer closes without having read: a reset",
     "connect add wait=OUT send:5=5 pclose wait=IN|OUT|RDHUP|HUP|ERR error=ECONNRESET"},
    {"the peer closes without having read: its bytes stay readable",
     "connect add wait=OUT psend:5 send:5=5 pclose wait=IN|OUT|RDHUP|HUP|ERR recv:9=5 "
     "recv:9=ECONNRESET"},
    {"one slot: full at the end of the stream",
     "slots:1 connect psend:2 in:1=1 in:1=EAGAIN pfin in:1=EAGAIN read:1=1 in:1=1 read:1=1 "
     "in:1=0 in:1=0"},
    {"two slots: full behind a reset",
     "slots:2 connect psend:3 in:1=1 in:1=1 in:1=EAGAIN preset in:1=EAGAIN read:2=2 in:1=1 "
     "read:9=1 in:1=ECONNRESET in:1=0"},
    {"one slot: full is no error", "slots:1 connect psend:3 in:1=1 error=0 in:1=EAGAIN held=1"},
    {"splice out",
     "connect psend:9 in:9=9 out:4=4 out:9=5 ptake=9+EAGAIN held=0 out:1=empty read:1=EAGAIN"},
    {"splice out after our FIN", "connect psend:5 in:9=5 shut=0 out:9=EPIPE held=5"},
    {"refused",
     "refused=0+EINPROGRESS add wait=IN|OUT|RDHUP|HUP|ERR wait=nothing "
     "look=IN|OUT|HUP|ERR+0+some error=ECONNREFUSED error=0 recv:9=0 send:1=EPIPE shut=ENOTCONN"},
    {"refused: recv takes the error", "refused=0+EINPROGRESS recv:9=ECONNREFUSED error=0"},
    {"registered before it connects: HUP, then refused",
     "socket add wait=OUT|HUP refused=EINPROGRESS wait=IN|OUT|RDHUP|HUP|ERR error=ECONNREFUSED"},
    {"registered before it connects: HUP, then connected",
     "socket add wait=OUT|HUP connect wait=OUT"},
    {"connected, answered and reset before we look",
     "connect psend:5 preset add wait=IN|OUT|RDHUP|HUP|ERR error=ECONNRESET recv:9=5 recv:9=0"},
    {"connected, answered and FIN before we look", "connect psend:5 pfin add wait=IN|OUT|RDHUP"},
    {"connected, answered and closed before we look",
     "connect psend:5 pclose add wait=IN|OUT|RDHUP recv:9=5 recv:9=0 send:1=1 error=EPIPE"},
    {"the listener: an edge for each arrival, none for what is left",
     "addl wait=nothing arrive wait=listener:IN wait=nothing arrive wait=listener:IN accept=0 "
     "wait=nothing accept=0 accept=EAGAIN wait=nothing arrive wait=listener:IN accept=0 "
     "accept=EAGAIN"},
    {"the listener: registered late", "arrive addl wait=listener:IN accept=0 accept=EAGAIN"},
    {"reset behind bytes before accept",
     "arrive psend:5 preset accept=0 add wait=IN|OUT|RDHUP|HUP|ERR recv:9=5 recv:9=ECONNRESET "
     "error=0"},
    {"FIN before accept",
     "arrive pfin accept=0 add wait=IN|OUT|RDHUP recv:9=0 send:3=3 ptake=3+EAGAIN"},
    {"reset before accept: accepted all the same",
     "addl arrive preset wait=listener:IN accept=0 recv:9=ECONNRESET recv:9=0"},
    {"close resets; bytes before it arrive",
     "connect send:5=5 close=0 ptake=5+ECONNRESET ptake=0+FIN"},
    {"close resets after our FIN: the peer has its FIN",
     "connect send:5=5 shut=0 close=0 ptake=5+FIN"},
    {"close without linger: FIN", "connect send:5=5 linger:0 close=0 ptake=5+FIN"},
    {"close without linger, bytes unread: a reset",
     "connect psend:5 linger:0 close=0 ptake=0+ECONNRESET"},
    {"close without linger after our FIN, bytes unread",
     "connect psend:5 linger:0 shut=0 ptake=0+FIN close=0 ptake=0+FIN"},
    {"close after both have ended: no reset",
     "connect pfin linger:0 shut=0 linger:1 close=0 ptake=0+FIN"},
    {"close of an accepted one resets: inherited from the listener",
     "arrive accept=0 close=0 ptake=0+ECONNRESET"},
    {"close resets and drops what was not sent",
     "connect fill=EAGAIN close=0 ptake=many+ECONNRESET"},
    {"close without linger sends the rest, then FIN",
     "connect fill=EAGAIN linger:0 close=0 ptake=many+FIN"},
    {"close resets and drops our FIN that was not sent",
     "connect fill=EAGAIN shut=0 close=0 ptake=many+ECONNRESET"},
    {"acknowledged", "connect send:9=9 unacked=0 shut=0 unacked=0 look=OUT+0+0"},
    {"an urgent byte: recv stops before it, and tells no more than PRI",
     "connect add wait=OUT psend:3 purge wait=IN|OUT|PRI psend:2 wait=IN|OUT|PRI recv:9=3 "
     "recv:9=3 wait=nothing recv:9=EAGAIN"},
    {"an urgent byte: splice stops before it, and says EAGAIN",
     "connect psend:3 purge psend:2 in:9=3 in:9=EAGAIN look=IN|OUT+3+0 recv:1=1 in:9=2 "
     "in:9=EAGAIN"},
    {"an urgent byte before FIN: to splice it looks like the end",
     "connect purge pfin in:9=0 recv:9=1 recv:9=0"},
    {"an urgent byte before a reset: splice takes the error, recv has the byte",
     "connect purge preset in:9=ECONNRESET in:9=0 readable=1 recv:9=1 recv:9=0"},
    {"two urgent bytes: the second one counts",
     "connect psend:3 purge psend:1 purge psend:2 add wait=IN|OUT|PRI recv:9=5 recv:9=3"},
    {"the peer takes nothing for too long",
     "connect add wait=OUT psend:5 fill=EAGAIN plost wait=IN|OUT|RDHUP|HUP|ERR recv:9=5 "
     "recv:9=ETIMEDOUT recv:9=0 send:1=EPIPE error=0"},
    {"the peer takes nothing for too long, behind FIN",
     "connect pfin fill=EAGAIN plost recv:9=0 error=ETIMEDOUT"},
    {"acknowledged bytes are no edge while there was room",
     "connect add wait=OUT send:555=555 wait=nothing ptake=555+EAGAIN wait=nothing"},
    {"an urgent byte that was read is forgotten", "connect add wait=OUT purge recv:5=1 wait=OUT"},
    {"a full buffer and FIN both ways: HUP before ours has arrived",
     "connect add pfin wait=IN|OUT|RDHUP fill=EAGAIN shut=0 wait=IN|OUT|RDHUP|HUP"},
};

const size_t trace_corners_len = ARRAY_LEN(trace_corners);
