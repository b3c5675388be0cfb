// Node's tedious: a TDS of its own, with typed parameters and bulk loads.
'use strict';

const { Connection, Request, TYPES, ISOLATION_LEVEL } = require(require.resolve('tedious', { paths: [process.env.NODE_PATH || __dirname] }));
const assert = require('node:assert');
const { readFileSync } = require('node:fs');
const { inspect } = require('node:util');

let passed = 0;
let failed = 0;

function show(value) {
  const text = typeof value === 'string' ? value : inspect(value, { depth: 6, breakLength: Infinity });
  return text.length <= 300 ? text : `${text.slice(0, 300)}… (${text.length} characters)`;
}

function equal(name, got, want) {
  try {
    assert.deepStrictEqual(got, want);
    passed += 1;
    console.log(`ok   tedious: ${name}`);
  } catch {
    failed += 1;
    console.log(`FAIL tedious: ${name}\n       got  ${show(got)}\n       want ${show(want)}`);
  }
}

/** A check that asks several things: an exception fails it and nothing else. */
async function run(name, check) {
  try {
    await check();
  } catch (error) {
    failed += 1;
    console.log(`FAIL tedious: ${name}\n       ${error.stack}`);
  }
}

function connect({ encrypt = true, password = process.env.STANDIN_PASSWORD, database = 'proof' } = {}) {
  const connection = new Connection({
    server: process.env.STANDIN_HOST,
    authentication: { type: 'default', options: { userName: 'sa', password } },
    options: {
      port: Number(process.env.STANDIN_PORT),
      database,
      encrypt,
      trustServerCertificate: encrypt !== 'strict',
      serverName: 'localhost',
      cryptoCredentialsDetails: { ca: process.env.STANDIN_CERTIFICATE && readFileSync(process.env.STANDIN_CERTIFICATE) },
      rowCollectionOnRequestCompletion: false,
      requestTimeout: 60000,
      connectTimeout: 10000,
      appName: 'foreign tedious',
    },
  });
  return new Promise((resolve, reject) => {
    connection.connect((error) => (error ? reject(error) : resolve(connection)));
    connection.on('error', () => {});
  });
}

/** Result sets, counts and errors of a request; `how` is execSql (sp_executesql), execSqlBatch or callProcedure. */
function ask(connection, text, { params = [], how = 'execSql' } = {}) {
  return new Promise((resolve) => {
    const answer = { sets: [], names: [], counts: [], returned: {}, status: undefined };
    const request = new Request(text, (error, rowCount) => resolve({ ...answer, error: error ?? null, rowCount }));
    request.on('columnMetadata', (columns) => {
      answer.names.push(columns.map((column) => column.colName));
      answer.sets.push([]);
    });
    request.on('row', (columns) => answer.sets.at(-1).push(columns.map((column) => column.value)));
    for (const event of ['done', 'doneInProc']) {
      request.on(event, (count) => count !== undefined && answer.counts.push(count));
    }
    request.on('returnValue', (name, value) => (answer.returned[name] = value));
    request.on('doneProc', (count, more, status) => (answer.status = status));
    for (const [name, type, value, options] of params) {
      if (options?.output) request.addOutputParameter(name, type, value, options);
      else request.addParameter(name, type, value, options);
    }
    connection[how](request);
  });
}

async function one(connection, text, options) {
  const answer = await ask(connection, text, options);
  if (answer.error) throw answer.error;
  return answer.sets.at(-1)[0][0];
}

async function must(connection, text, options) {
  const answer = await ask(connection, text, options);
  if (answer.error) throw answer.error;
  return answer;
}

/** A date as tedious gives it: milliseconds, and what is below them in seconds. */
function at(text, delta = 0) {
  return { time: new Date(text).toISOString(), delta };
}

function plain(value) {
  return value instanceof Date ? { time: value.toISOString(), delta: Number((value.nanosecondDelta ?? value.nanosecondsDelta ?? 0).toFixed(7)) } : value;
}

const utc = (...parts) => {
  const date = new Date(Date.UTC(...parts));
  date.setUTCFullYear(parts[0]);
  return date;
};
const nano = (date, delta) => Object.assign(date, { nanosecondDelta: delta });
const bytes = (...values) => Buffer.from(values);
const GUID = '6F9619FF-8B86-D011-B42D-00C04FC964FF';

// declaration, tedious' type and its options, and [literal, value as a parameter, value as it comes back when that is another]
const VALUES = [
  ['bit', TYPES.Bit, {}, [['0', false], ['1', true]]],
  ['tinyint', TYPES.TinyInt, {}, [['0', 0], ['255', 255]]],
  ['smallint', TYPES.SmallInt, {}, [['-32768', -32768], ['32767', 32767]]],
  ['int', TYPES.Int, {}, [['-2147483648', -2147483648], ['2147483647', 2147483647]]],
  ['bigint', TYPES.BigInt, {}, [['-9223372036854775808', '-9223372036854775808'], ['9223372036854775807', '9223372036854775807']]],
  ['real', TYPES.Real, {}, [['-3.40282347E+38', Math.fround(-3.40282347e38)], ['0.1', Math.fround(0.1)]]],
  ['float', TYPES.Float, {}, [['-1.7976931348623157E+308', -1.7976931348623157e308], ['2.2250738585072014E-308', 2.2250738585072014e-308]]],
  ['decimal(15,4)', TYPES.Decimal, { precision: 15, scale: 4 }, [['-12345678901.2345', -12345678901.2345], ['0.0001', 0.0001]]],
  ['numeric(5,2)', TYPES.Numeric, { precision: 5, scale: 2 }, [['999.99', 999.99], ['-999.99', -999.99]]],
  ['money', TYPES.Money, {}, [['-922337203.5808', -922337203.5808], ['922337203.5807', 922337203.5807]]],
  ['smallmoney', TYPES.SmallMoney, {}, [['-214748.3648', -214748.3648], ['214748.3647', 214748.3647]]],
  ['date', TYPES.Date, {}, [["'0001-01-01'", utc(1, 0, 1)], ["'9999-12-31'", utc(9999, 11, 31)]]],
  ['time(7)', TYPES.Time, { scale: 7 }, [["'00:00:00'", utc(1970, 0, 1)], ["'23:59:59.9999999'", nano(utc(1970, 0, 1, 23, 59, 59, 999), 0.0009999)]]],
  ['time(0)', TYPES.Time, { scale: 0 }, [["'12:34:56'", utc(1970, 0, 1, 12, 34, 56)]]],
  ['smalldatetime', TYPES.SmallDateTime, {}, [["'1900-01-01T00:00:00'", utc(1900, 0, 1)], ["'2079-06-06T23:59:00'", utc(2079, 5, 6, 23, 59)]]],
  ['datetime', TYPES.DateTime, {}, [["'1753-01-01T00:00:00'", utc(1753, 0, 1)], ["'9999-12-31T23:59:59.997'", utc(9999, 11, 31, 23, 59, 59, 997)]]],
  ['datetime2(7)', TYPES.DateTime2, { scale: 7 }, [["'0001-01-01T00:00:00'", utc(1, 0, 1)], ["'9999-12-31T23:59:59.9999999'", nano(utc(9999, 11, 31, 23, 59, 59, 999), 0.0009999)]]],
  ['datetime2(3)', TYPES.DateTime2, { scale: 3 }, [["'2024-02-29T12:34:56.789'", utc(2024, 1, 29, 12, 34, 56, 789)]]],
  ['datetimeoffset(7)', TYPES.DateTimeOffset, { scale: 7 }, [["'2024-02-29T12:34:56.1234567+14:00'", nano(utc(2024, 1, 28, 22, 34, 56, 123), 0.0004567)]]],
  ['char(5)', TYPES.Char, { length: 5 }, [["'ab'", 'ab', 'ab   '], ["'abcde'", 'abcde']]],
  ['varchar(20)', TYPES.VarChar, { length: 20 }, [["''", ''], ["'naïve café'", 'naïve café']]],
  ['varchar(max)', TYPES.VarChar, { length: Infinity }, [["REPLICATE(CAST('x' AS varchar(max)), 9000)", 'x'.repeat(9000)], ["''", '']]],
  ['nchar(4)', TYPES.NChar, { length: 4 }, [["N'漢'", '漢', '漢   ']]],
  ['nvarchar(20)', TYPES.NVarChar, { length: 20 }, [["N''", ''], ["N'a😀é漢'", 'a😀é漢']]],
  ['nvarchar(max)', TYPES.NVarChar, { length: Infinity }, [["REPLICATE(CAST(N'漢😀' AS nvarchar(max)), 5000)", '漢😀'.repeat(5000)], ["N''", '']]],
  ['binary(4)', TYPES.Binary, { length: 4 }, [['0x0001FF00', bytes(0, 1, 255, 0)]]],
  ['varbinary(8)', TYPES.VarBinary, { length: 8 }, [['0x', bytes()], ['0x0001020304050607', bytes(0, 1, 2, 3, 4, 5, 6, 7)]]],
  ['varbinary(max)', TYPES.VarBinary, { length: Infinity }, [["CAST(REPLICATE(CAST('x' AS varchar(max)), 9000) AS varbinary(max))", Buffer.alloc(9000, 'x')], ['0x', bytes()]]],
  ['uniqueidentifier', TYPES.UniqueIdentifier, {}, [[`'${GUID}'`, GUID]]],
  ['text', TYPES.Text, {}, [["'naïve'", 'naïve']]],
  ['ntext', TYPES.NText, {}, [["N'a😀é漢'", 'a😀é漢']]],
  ['image', TYPES.Image, {}, [['0x00FF', bytes(0, 255)]]],
];

async function connects() {
  for (const [encrypt, option] of [[true, 'TRUE'], [false, 'FALSE'], ['strict', 'TRUE']]) {
    await run(`encrypt=${encrypt}`, async () => {
      const connection = await connect({ encrypt });
      equal(`encrypt=${encrypt}`, await one(connection, 'SELECT encrypt_option FROM sys.dm_exec_connections WHERE session_id = @@SPID'), option);
      equal(`encrypt=${encrypt}: database`, await one(connection, 'SELECT DB_NAME()'), 'proof');
      connection.close();
    });
  }
}

async function refuses() {
  const refused = (options) => connect(options).then(() => null, (error) => error);
  const numbers = (error) => [error.cause ?? error, ...(error.errors ?? [])].map((each) => [each.code, each.number, each.message]);
  const password = await refused({ password: 'wrong' });
  equal('a wrong password', [password?.code, /Login failed for user 'sa'/.test(password?.message)], ['ELOGIN', true]);
  const database = await refused({ database: 'nowhere' });
  equal('an unknown database', [database?.code, /Cannot open database "nowhere"|Login failed/.test(numbers(database).toString())], ['ELOGIN', true]);
}

async function literals(connection) {
  for (const [declaration, , , values] of VALUES) {
    for (const [literal, value, back] of values) {
      await run(`literal ${declaration} ${literal}`, async () => {
        equal(`literal ${declaration} ${literal}`, plain(await one(connection, `SELECT CAST(${literal} AS ${declaration})`, { how: 'execSqlBatch' })), plain(back ?? value));
      });
    }
    await run(`literal ${declaration} NULL`, async () => equal(`literal ${declaration} NULL`, await one(connection, `SELECT CAST(NULL AS ${declaration})`), null));
  }
}

async function parameters(connection) {
  for (const [declaration, type, options, values] of VALUES) {
    for (const [literal, value, back] of [...values, ['NULL', null]]) {
      await run(`parameter ${declaration} ${literal}`, async () => {
        await must(connection, `CREATE TABLE #sent (value ${declaration} NULL)`, { how: 'execSqlBatch' });
        await must(connection, 'INSERT INTO #sent (value) VALUES (@value)', { params: [['value', type, value, options]] });
        equal(`parameter ${declaration} ${literal}`, plain(await one(connection, 'SELECT value FROM #sent')), plain(back ?? value));
      });
      await ask(connection, 'DROP TABLE IF EXISTS #sent', { how: 'execSqlBatch' });
    }
  }
}

async function errors(connection) {
  for (const [text, want] of [
    ['SELECT 1\n\nSELECT 1/0', [8134, 16, 1, 3, '']],
    ["\nRAISERROR('own %s', 12, 34, 'text')", [50000, 12, 34, 2, '']],
    ["\n\n\nTHROW 51000, 'thrown', 5", [51000, 16, 5, 4, '']],
    ['SELECT * FROM nowhere', [208, 16, 1, 1, '']],
    ['SELECT 1 +', [102, 15, 1, 1, '']],
    ["SELECT CAST('x' AS int)", [245, 16, 1, 1, '']],
  ]) {
    const { error } = await ask(connection, text, { how: 'execSqlBatch' });
    equal(`error of ${JSON.stringify(text)}`, error && [error.number, error.class, error.state, error.lineNumber, error.procName], want);
  }
  equal('the connection lives on', await one(connection, 'SELECT 42'), 42);
}

async function resultSets(connection) {
  const answer = await must(connection, "SELECT 1 AS a; SELECT N'two' AS b, 3 AS c; SELECT 4 AS d WHERE 1 = 0", { how: 'execSqlBatch' });
  equal('names of three result sets', answer.names, [['a'], ['b', 'c'], ['d']]);
  equal('rows of three result sets', answer.sets, [[[1]], [['two', 3]], []]);
  const counts = await must(connection, 'CREATE TABLE #n (id int); INSERT INTO #n VALUES (1), (2), (3); UPDATE #n SET id = 9 WHERE id > 1; DELETE FROM #n WHERE id = 0', { how: 'execSqlBatch' });
  equal('row counts', counts.counts, [3, 2, 0]);
  await must(connection, 'DROP TABLE #n', { how: 'execSqlBatch' });
}

async function procedures(connection) {
  await must(
    connection,
    'CREATE OR ALTER PROCEDURE dbo.doubled @in int, @text nvarchar(50), @out int OUTPUT, @said nvarchar(max) OUTPUT AS ' +
      'BEGIN SET NOCOUNT ON; SET @out = 2 * @in; SET @said = @text + N\'!\'; SELECT @out AS doubled; RETURN 7 END',
    { how: 'execSqlBatch' },
  );
  const answer = await must(connection, 'dbo.doubled', {
    how: 'callProcedure',
    params: [
      ['in', TYPES.Int, 21],
      ['text', TYPES.NVarChar, '漢'],
      ['out', TYPES.Int, null, { output: true }],
      ['said', TYPES.NVarChar, null, { output: true, length: Infinity }],
    ],
  });
  equal('procedure: result set', answer.sets, [[[42]]]);
  equal('procedure: output parameters', answer.returned, { out: 42, said: '漢!' });
  equal('procedure: return status', answer.status, 7);
}

async function prepared(connection) {
  const got = await new Promise((resolve, reject) => {
    const rows = [];
    let run = 0;
    const request = new Request('SELECT @a + 1', (error) => {
      if (error) return reject(error);
      if (run === 3) return resolve(rows);
      run += 1;
      return run < 3 ? connection.execute(request, { a: run * 10 }) : connection.unprepare(request);
    });
    request.addParameter('a', TYPES.Int);
    request.on('row', (columns) => rows.push(columns[0].value));
    request.on('prepared', () => connection.execute(request, { a: 0 }));
    connection.prepare(request);
  });
  equal('prepared and executed three times', got, [1, 11, 21]);
}

async function transactions(connection) {
  const other = await connect();
  await must(other, 'DROP TABLE IF EXISTS dbo.journal; CREATE TABLE dbo.journal (id int NOT NULL PRIMARY KEY)', { how: 'execSqlBatch' });
  const step = (name, ...args) => new Promise((resolve, reject) => connection[name]((error) => (error ? reject(error) : resolve()), ...args));
  await step('beginTransaction', '', ISOLATION_LEVEL.READ_COMMITTED);
  equal('in a transaction', await one(connection, 'SELECT @@TRANCOUNT'), 1);
  await must(connection, 'INSERT INTO dbo.journal VALUES (1)');
  await step('rollbackTransaction');
  equal('rolled back', await one(other, 'SELECT COUNT(*) FROM dbo.journal'), 0);
  await step('beginTransaction', 'named', ISOLATION_LEVEL.SERIALIZABLE);
  await must(connection, 'INSERT INTO dbo.journal VALUES (2)');
  await step('saveTransaction', 'point');
  await must(connection, 'INSERT INTO dbo.journal VALUES (3)');
  await step('rollbackTransaction', 'point');
  await step('commitTransaction');
  equal('committed up to the savepoint', (await must(other, 'SELECT id FROM dbo.journal')).sets, [[[2]]]);
  equal('out of the transaction', await one(connection, 'SELECT @@TRANCOUNT'), 0);
  other.close();
}

async function bigValues(connection) {
  await must(connection, 'CREATE TABLE #big (v varchar(max), n nvarchar(max), b varbinary(max))', { how: 'execSqlBatch' });
  const [v, n, b] = ['0123456789abcdef'.repeat(65536), '漢字かな'.repeat(131072), Buffer.alloc(1048576, Buffer.from([...Array(256).keys()]))];
  await must(connection, 'INSERT INTO #big VALUES (@v, @n, @b)', {
    params: [['v', TYPES.VarChar, v, { length: Infinity }], ['n', TYPES.NVarChar, n, { length: Infinity }], ['b', TYPES.VarBinary, b, { length: Infinity }]],
  });
  const [row] = (await must(connection, 'SELECT v, n, b FROM #big')).sets[0];
  equal('1 MiB of varchar', row[0] === v, true);
  equal('1 MiB of nvarchar', row[1] === n, true);
  equal('1 MiB of varbinary', b.equals(row[2]), true);
  await must(connection, 'DROP TABLE #big', { how: 'execSqlBatch' });
}

function load(connection, table, options, columns, rows) {
  return new Promise((resolve, reject) => {
    const bulk = connection.newBulkLoad(table, options, (error, count) => (error ? reject(error) : resolve(count)));
    for (const [name, type, more] of columns) bulk.addColumn(name, type, { nullable: true, ...more });
    connection.execBulkLoad(bulk, rows);
  });
}

async function bulkLoads(connection) {
  for (const [declaration, type, options, values] of VALUES) {
    if (['text', 'ntext', 'image'].includes(declaration)) {
      // tedious has no bulk load of these (its own check refuses them).
      continue;
    }
    await run(`bulk load ${declaration}`, async () => {
      await must(connection, `DROP TABLE IF EXISTS dbo.loaded; CREATE TABLE dbo.loaded (id int NOT NULL, value ${declaration} NULL)`, { how: 'execSqlBatch' });
      const rows = [...values.map(([, value], number) => [number, value]), [1000, null]];
      const count = await load(connection, 'dbo.loaded', {}, [['id', TYPES.Int, { nullable: false }], ['value', type, options]], rows);
      equal(`bulk load ${declaration}: count`, count, rows.length);
      const got = (await must(connection, 'SELECT value FROM dbo.loaded ORDER BY id')).sets[0].map(([value]) => plain(value));
      equal(`bulk load ${declaration}`, got, [...values.map(([, value, back]) => plain(back ?? value)), null]);
    });
  }
  await must(connection, "DROP TABLE IF EXISTS dbo.loaded; CREATE TABLE dbo.loaded (id int NOT NULL PRIMARY KEY, name nvarchar(50) NULL CHECK (name <> N'no') DEFAULT N'none')", { how: 'execSqlBatch' });
  const columns = [['id', TYPES.Int, { nullable: false }], ['name', TYPES.NVarChar, { length: 50 }]];
  const many = Array.from({ length: 20000 }, (_, number) => [number, number % 7 ? `row ${number} é` : null]);
  equal('bulk load of 20,000 rows', await load(connection, 'dbo.loaded', { keepNulls: true, lockTable: true }, columns, many), 20000);
  equal('what 20,000 rows are', (await must(connection, 'SELECT id, name FROM dbo.loaded ORDER BY id')).sets[0], many);
  const refused = async (options, rows) => (await load(connection, 'dbo.loaded', options, columns, rows).then(() => null, (error) => error))?.number;
  equal('bulk load of a duplicate key', await refused({}, [[5, 'again']]), 2627);
  equal('bulk load against a check', await refused({ checkConstraints: true }, [[20001, 'no']]), 547);
  equal('bulk load past a check', await load(connection, 'dbo.loaded', {}, columns, [[20001, 'no']]), 1);
  equal('bulk load takes the default for NULL', [await load(connection, 'dbo.loaded', {}, columns, [[20002, null]]), await one(connection, 'SELECT name FROM dbo.loaded WHERE id = 20002')], [1, 'none']);
}

async function cancels(connection) {
  const cancelled = await new Promise((resolve) => {
    const request = new Request("WAITFOR DELAY '00:00:30'", (error) => resolve(error?.code));
    connection.execSqlBatch(request);
    setTimeout(() => connection.cancel(), 200);
  });
  equal('a cancelled request', cancelled, 'ECANCEL');
  equal('the connection after it', await one(connection, 'SELECT 1'), 1);
}

async function resets(connection) {
  await must(connection, 'SET LOCK_TIMEOUT 5; CREATE TABLE #mine (id int)', { how: 'execSqlBatch' });
  await new Promise((resolve, reject) => connection.reset((error) => (error ? reject(error) : resolve())));
  equal('a reset connection', await one(connection, 'SELECT @@LOCK_TIMEOUT'), -1);
  equal('its temporary tables', (await ask(connection, 'SELECT * FROM #mine')).error?.number, 208);
}

async function main() {
  await run('connects', connects);
  await run('refuses', refuses);
  const connection = await connect();
  for (const check of [literals, parameters, errors, resultSets, procedures, prepared, transactions, bigValues, bulkLoads, cancels, resets]) {
    await run(check.name, () => check(connection));
  }
  connection.close();
  console.log(`tedious: ${passed} passed, ${failed} failed`);
  process.exitCode = failed || !passed ? 1 : 0;
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
