    -- A key, its rule, when it expires in Unix milliseconds, up to which score it is cut, the fields that have no value,
    -- and the arguments of its command, in parts.
    concat('', {key}) AS _name_{number},
    {rule} AS _rule_{number},
    {end} AS _end_{number},
    {cut} AS _cut_{number},
    {absent} AS _absent_{number},
    {arguments} AS _arguments_{number},
    if(_rule_{number} = 'unite', 5000, 1000000) AS _size_{number},
    -- None where the entity has no row in the window, or has expired before the watermark.
    if(
        {due},
        arrayMap(
            part -> arraySlice(_arguments_{number}, part * _size_{number} + 1, _size_{number}),
            range(toUInt64(greatest(1, ceil(length(_arguments_{number}) / _size_{number}))))
        ),
        []
    ) AS _parts_{number}
