        -- EVALSHA script 1 <key> <command> <rule> <end> <cut> <how many fields have no value> <field>… <argument>…
        arrayMap(
            (arguments, part) -> (
                if(part = 1, toUInt32(_shard + {counted_at}), toUInt32(4294967295)),
                _name_{number},
                concat(
                    '*', toString(9 + length(_absent_{number}) + length(arguments)), '\r\n$7\r\nEVALSHA\r\n',
                    bulk({{script:String}}), '$1\r\n1\r\n', bulk(_name_{number}),
                    bulk('{command}'), bulk(_rule_{number}), bulk(_end_{number}), bulk(_cut_{number}),
                    bulk(toString(length(_absent_{number}))),
                    arrayStringConcat(arrayMap(one -> bulk(one), _absent_{number})),
                    arrayStringConcat(arrayMap(one -> bulk(one), arguments))
                )
            ),
            _parts_{number}, arrayEnumerate(_parts_{number})
        )
