-- The queries in SQLite's SQL. Tables: person(id, name, email, card, city, state, dateTime, extra), auction(id, itemName,
-- description, initialBid, reserve, dateTime, expires, seller, category, extra), bid(auction, bidder, price, dateTime, extra).
-- Each query gives one JSON object per row. Where Flink's query leaves open which of several rows comes first, the order is
-- made total here as it is in the Go code.

-- q0
SELECT json_object('auction', auction, 'bidder', bidder, 'price', price, 'dateTime', dateTime, 'extra', extra) FROM bid;

-- q1
SELECT json_object('auction', auction, 'bidder', bidder,
  'price', json(printf('%d.%03d', price * 908 / 1000, price * 908 % 1000)), 'dateTime', dateTime, 'extra', extra)
FROM bid;

-- q2
SELECT json_object('auction', auction, 'price', price) FROM bid WHERE auction % 123 = 0;

-- q3
SELECT json_object('name', P.name, 'city', P.city, 'state', P.state, 'id', A.id)
FROM auction A JOIN person P ON A.seller = P.id
WHERE A.category = 10 AND P.state IN ('OR', 'ID', 'CA');

-- q4
SELECT json_object('category', category, 'final', SUM(final) / COUNT(*)) FROM (
  SELECT MAX(B.price) AS final, A.category AS category
  FROM auction A JOIN bid B ON A.id = B.auction AND B.dateTime BETWEEN A.dateTime AND A.expires
  GROUP BY A.id, A.category)
GROUP BY category;

-- q5
WITH hop(k) AS (VALUES (0), (1), (2), (3), (4)),
counts AS (
  SELECT auction, COUNT(*) AS num, (dateTime / 2000 - k) * 2000 AS starttime FROM bid, hop GROUP BY auction, starttime)
SELECT json_object('auction', C.auction, 'num', C.num, 'starttime', C.starttime, 'endtime', C.starttime + 10000)
FROM counts C JOIN (SELECT MAX(num) AS maxn, starttime FROM counts GROUP BY starttime) M
  ON C.starttime = M.starttime AND C.num >= M.maxn;

-- q7
SELECT json_object('auction', B.auction, 'bidder', B.bidder, 'price', B.price, 'dateTime', B.dateTime, 'extra', B.extra)
FROM bid B JOIN (
  SELECT MAX(price) AS maxprice, (dateTime / 10000 + 1) * 10000 AS endtime FROM bid GROUP BY endtime) W
  ON B.price = W.maxprice AND B.dateTime BETWEEN W.endtime - 10000 AND W.endtime;

-- q8
SELECT json_object('id', P.id, 'name', P.name, 'starttime', P.starttime)
FROM (SELECT id, name, dateTime / 10000 * 10000 AS starttime FROM person GROUP BY id, name, starttime) P
JOIN (SELECT seller, dateTime / 10000 * 10000 AS starttime FROM auction GROUP BY seller, starttime) A
  ON P.id = A.seller AND P.starttime = A.starttime;

-- q9
SELECT json_object('id', id, 'itemName', itemName, 'description', description, 'initialBid', initialBid, 'reserve', reserve,
  'dateTime', dateTime, 'expires', expires, 'seller', seller, 'category', category, 'extra', extra, 'auction', auction,
  'bidder', bidder, 'price', price, 'bid_dateTime', bid_dateTime, 'bid_extra', bid_extra)
FROM (
  SELECT A.*, B.auction, B.bidder, B.price, B.dateTime AS bid_dateTime, B.extra AS bid_extra,
    ROW_NUMBER() OVER (PARTITION BY A.id ORDER BY B.price DESC, B.dateTime, B.bidder, B.extra) AS rownum
  FROM auction A JOIN bid B ON A.id = B.auction AND B.dateTime BETWEEN A.dateTime AND A.expires)
WHERE rownum <= 1;

-- q11
WITH gaps AS (
  SELECT bidder, dateTime,
    dateTime - LAG(dateTime) OVER (PARTITION BY bidder ORDER BY dateTime) > 10000 AS first FROM bid),
sessions AS (
  SELECT bidder, dateTime, SUM(COALESCE(first, 0)) OVER (PARTITION BY bidder ORDER BY dateTime) AS session FROM gaps)
SELECT json_object('bidder', bidder, 'bid_count', COUNT(*), 'starttime', MIN(dateTime), 'endtime', MAX(dateTime) + 10000)
FROM sessions GROUP BY bidder, session;

-- q12: the windows are those of a clock, so only what they add up to is known
SELECT json_object('bidder', bidder, 'bid_count', COUNT(*)) FROM bid GROUP BY bidder;

-- q13
SELECT json_object('auction', auction, 'bidder', bidder, 'price', price, 'dateTime', dateTime,
  'value', 'side-' || (auction % 10000))
FROM bid;

-- q14
SELECT json_object('auction', auction, 'bidder', bidder,
  'price', json(printf('%d.%03d', price * 908 / 1000, price * 908 % 1000)),
  'bidTimeType', CASE
    WHEN hour >= 8 AND hour <= 18 THEN 'dayTime'
    WHEN hour <= 6 OR hour >= 20 THEN 'nightTime'
    ELSE 'otherTime' END,
  'dateTime', dateTime, 'extra', extra, 'c_counts', length(extra) - length(replace(extra, 'c', '')))
FROM (SELECT *, CAST(strftime('%H', dateTime / 1000, 'unixepoch') AS INTEGER) AS hour FROM bid)
WHERE price * 908 > 1000000 * 1000 AND price * 908 < 50000000 * 1000;

-- q15
SELECT json_object('day', strftime('%Y-%m-%d', dateTime / 1000, 'unixepoch'),
  'total_bids', COUNT(*),
  'rank1_bids', COUNT(*) FILTER (WHERE price < 10000),
  'rank2_bids', COUNT(*) FILTER (WHERE price >= 10000 AND price < 1000000),
  'rank3_bids', COUNT(*) FILTER (WHERE price >= 1000000),
  'total_bidders', COUNT(DISTINCT bidder),
  'rank1_bidders', COUNT(DISTINCT bidder) FILTER (WHERE price < 10000),
  'rank2_bidders', COUNT(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000),
  'rank3_bidders', COUNT(DISTINCT bidder) FILTER (WHERE price >= 1000000),
  'total_auctions', COUNT(DISTINCT auction),
  'rank1_auctions', COUNT(DISTINCT auction) FILTER (WHERE price < 10000),
  'rank2_auctions', COUNT(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000),
  'rank3_auctions', COUNT(DISTINCT auction) FILTER (WHERE price >= 1000000))
FROM bid GROUP BY strftime('%Y-%m-%d', dateTime / 1000, 'unixepoch');

-- q16
WITH channelled AS (
  SELECT *, strftime('%Y-%m-%d', dateTime / 1000, 'unixepoch') AS day, CASE
    WHEN price % 2 = 1 THEN 'channel-' || ((auction * 31 + bidder) % 10000)
    WHEN bidder % 4 = 0 THEN 'Google'
    WHEN bidder % 4 = 1 THEN 'Facebook'
    WHEN bidder % 4 = 2 THEN 'Baidu'
    ELSE 'Apple' END AS channel
  FROM bid)
SELECT json_object('channel', channel, 'day', day, 'minute', MAX(strftime('%H:%M', dateTime / 1000, 'unixepoch')),
  'total_bids', COUNT(*),
  'rank1_bids', COUNT(*) FILTER (WHERE price < 10000),
  'rank2_bids', COUNT(*) FILTER (WHERE price >= 10000 AND price < 1000000),
  'rank3_bids', COUNT(*) FILTER (WHERE price >= 1000000),
  'total_bidders', COUNT(DISTINCT bidder),
  'rank1_bidders', COUNT(DISTINCT bidder) FILTER (WHERE price < 10000),
  'rank2_bidders', COUNT(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000),
  'rank3_bidders', COUNT(DISTINCT bidder) FILTER (WHERE price >= 1000000),
  'total_auctions', COUNT(DISTINCT auction),
  'rank1_auctions', COUNT(DISTINCT auction) FILTER (WHERE price < 10000),
  'rank2_auctions', COUNT(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000),
  'rank3_auctions', COUNT(DISTINCT auction) FILTER (WHERE price >= 1000000))
FROM channelled GROUP BY channel, day;

-- q17
SELECT json_object('auction', auction, 'day', strftime('%Y-%m-%d', dateTime / 1000, 'unixepoch'),
  'total_bids', COUNT(*),
  'rank1_bids', COUNT(*) FILTER (WHERE price < 10000),
  'rank2_bids', COUNT(*) FILTER (WHERE price >= 10000 AND price < 1000000),
  'rank3_bids', COUNT(*) FILTER (WHERE price >= 1000000),
  'min_price', MIN(price), 'max_price', MAX(price), 'avg_price', SUM(price) / COUNT(*), 'sum_price', SUM(price))
FROM bid GROUP BY auction, strftime('%Y-%m-%d', dateTime / 1000, 'unixepoch');

-- q18
SELECT json_object('auction', auction, 'bidder', bidder, 'price', price, 'dateTime', dateTime, 'extra', extra)
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY bidder, auction ORDER BY dateTime DESC, price DESC, extra) AS rank_number FROM bid)
WHERE rank_number <= 1;

-- q19
SELECT json_object('auction', auction, 'bidder', bidder, 'price', price, 'dateTime', dateTime, 'extra', extra,
  'rank_number', rank_number)
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC, dateTime, bidder, extra) AS rank_number FROM bid)
WHERE rank_number <= 10;

-- q20
SELECT json_object('auction', B.auction, 'bidder', B.bidder, 'price', B.price, 'dateTime', B.dateTime, 'extra', B.extra,
  'itemName', A.itemName, 'description', A.description, 'initialBid', A.initialBid, 'reserve', A.reserve,
  'a_dateTime', A.dateTime, 'expires', A.expires, 'seller', A.seller, 'category', A.category, 'a_extra', A.extra)
FROM bid B JOIN auction A ON B.auction = A.id
WHERE A.category = 10;
