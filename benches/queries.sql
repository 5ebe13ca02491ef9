-- 1. How many runs has each project, and how many failed?
select source, pipeline, count(*) as runs,
count(*) filter (where outcome = 'failure') as failures, round(100.0 * count(*) filter (where outcome = 'failure')
/ nullif(count(*) filter (where outcome in ('success', 'failure')), 0), 1) as failed_percent, min(started_at) as first, max(started_at) as last
from pipeline_runs group by source, pipeline order by runs desc limit 20;

-- 2. On which days do runs fail? (0 = Sunday, UTC)
select extract(dow from started_at) as weekday, count(*) as runs,
round(100.0 * avg(case when outcome = 'failure' then 1.0 else 0.0 end), 1) as failed_percent
from pipeline_runs where outcome in ('success', 'failure') group by 1 order by 1;

-- 3. What were the longest rows of failures?
with runs as (select source, pipeline, outcome, started_at,
row_number() over (partition by source, pipeline order by started_at, run_id, attempt)
- row_number() over (partition by source, pipeline, outcome order by started_at, run_id, attempt) as streak
from pipeline_runs where outcome in ('success', 'failure'))
select source, pipeline, count(*) as failures, min(started_at) as first, max(started_at) as last
from runs where outcome = 'failure' group by source, pipeline, streak order by failures desc, first limit 8;

-- 4. What ran last?
select source, pipeline, run_id, attempt, outcome, trigger, started_at
from pipeline_runs order by started_at desc, run_id limit 10;

-- 5. How often did only trying again turn red into green?
select n.source, n.pipeline, count(*) as attempts_after_a_failure,
count(*) filter (where n.outcome = 'success') as turned_green
from pipeline_runs n join pipeline_runs p on p.source = n.source and p.run_id = n.run_id and p.attempt = n.attempt - 1
where p.outcome = 'failure' group by n.source, n.pipeline order by attempts_after_a_failure desc limit 10;

-- 6. How long do runs take, week by week?
select date_trunc('week', finished_at) as week, count(*) as runs,
round(median(duration_ms) / 60000.0, 1) as median_minutes, round(percentile_cont(0.95) within group (order by duration_ms) / 60000.0, 1) as p95_minutes
from pipeline_runs where source = 'https://github.com/pulumi/pulumi' and outcome in ('success', 'failure') group by 1 order by 1 desc limit 12;
